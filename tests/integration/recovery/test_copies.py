"""Copies in a directory of this machine are whole, follow retention, and are no second truth."""

from pathlib import Path

import pytest

from samplemind.backup.catalog import Catalog
from samplemind.backup.database_backup import BackupConfig, DatabaseBackup
from samplemind.backup.encryption import Keyring
from samplemind.backup.verification import verify_checksums
from samplemind.errors import BackupError
from samplemind.settings import BackupSettings
from samplemind.storage.local import LocalStore
from tests.integration.recovery.conftest import Databases


def copying(databases: Databases, folder: Path) -> DatabaseBackup:
    backup = BackupSettings.model_validate({"local_copy": folder, "keep_days": 0, "keep_last": 1})
    settings = databases.settings.model_copy(update={"backup": backup})
    return DatabaseBackup(BackupConfig(backup_dir=databases.folder), settings=settings)


def copies_in(folder: Path) -> Catalog:
    return Catalog(LocalStore(folder), Keyring({}))


def ids(catalog: Catalog) -> list[str]:
    return [entry.id for entry in catalog.entries()]


def test_copies_go_when_retention_no_longer_keeps_them(databases: Databases) -> None:
    databases.sql("CREATE TABLE sounds AS SELECT i FROM generate_series(1, 100) i")
    folder = databases.folder.with_name("copies")
    backup = copying(databases, folder)
    made = [backup.create_backup().id for _ in range(3)]
    copies = copies_in(folder)
    assert sorted(ids(copies)) == sorted(made)
    backup.hold(made[0], "before the move", "a test")

    told = backup.cleanup_old_backups(dry_run=True)
    assert told.copies is not None
    assert set(told.copies.plan.delete) == {made[0], made[1]}, "holds are followed when it is done"
    assert sorted(ids(copies)) == sorted(made)
    backup.cleanup_old_backups()
    assert sorted(ids(copies)) == sorted([made[0], made[2]])

    backup.release(made[0])
    backup.cleanup_old_backups()
    assert ids(copies) == [made[2]]
    (entry,) = copies.entries()
    assert entry.manifest is not None
    assert verify_checksums(copies.store, entry.manifest) == []


def test_copies_stay_when_the_store_has_lost_its_backups(databases: Databases) -> None:
    folder = databases.folder.with_name("copies")
    backup = copying(databases, folder)
    made = backup.create_backup().id
    with backup._destination() as destination:
        destination.catalog.delete(made)
    backup.cleanup_old_backups()
    assert ids(copies_in(folder)) == [made]


def test_a_copy_that_cannot_be_made_fails_the_job_and_says_that_the_backup_is_good(
    databases: Databases,
) -> None:
    folder = databases.folder.with_name("copies")
    folder.write_text("a file in its place")
    backup = copying(databases, folder)
    with pytest.raises(BackupError, match="is made and listed, but was not copied to"):
        backup.create_backup()
    (entry,) = backup.list_backups()
    assert entry.good
