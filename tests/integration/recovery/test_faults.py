"""A whole backup under faults of its store, and beside another one.

| fault | expected |
|---|---|
| the store answers 500 and resets connections for a while | the backup succeeds and decodes |
| the store goes away midway, or was never there | StoreUnavailableError, nothing is listed |
| the store is slow | the backup succeeds; a cancellation takes effect |
| the store's disk is full | StorageError that says so, nothing left; works again with room |
| the disk of a recovery is full | BackupError that says so, the directory is empty again |
| two backups begin at once | one is made, the other is refused with a word |
| this host's clock is set back | the new backup is whole and stays, as retention asks the store |
"""

import subprocess
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from samplemind.backup.catalog import CatalogEntry
from samplemind.backup.control import Control, Step
from samplemind.backup.database_backup import BackupConfig, DatabaseBackup
from samplemind.backup.manifest import BackupKind
from samplemind.backup.scratch import RecoveryTarget
from samplemind.backup.verification import Level
from samplemind.backup.wal import drop_slot
from samplemind.errors import (
    BackupCancelledError,
    BackupError,
    ConflictError,
    StorageError,
    StoreUnavailableError,
)
from samplemind.settings import StorageSettings
from tests.integration.recovery.conftest import Databases
from tests.object_stores import FaultyProxy, RcloneServer, rclone_server, s3_settings

ROWS = (
    "CREATE TABLE sounds (id int PRIMARY KEY, noise bytea);"
    "INSERT INTO sounds SELECT i, decode(string_agg(md5(i::text || n), ''), 'hex')"
    " FROM generate_series(1, 3000) i, generate_series(1, 200) n GROUP BY i"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneServer]:
    with rclone_server(tmp_path_factory.mktemp("rclone")) as running:
        yield running


@pytest.fixture
def proxy(server: RcloneServer) -> Iterator[FaultyProxy]:
    passing = FaultyProxy(server.port)
    yield passing
    passing.close()


def through(databases: Databases, storage: StorageSettings, **changes: Any) -> DatabaseBackup:
    storage = storage.model_copy(
        update={"prefix": databases.server.database, "timeout_s": 5, **changes}
    )
    return DatabaseBackup(settings=databases.settings.model_copy(update={"storage": storage}))


def listed(databases: Databases, server: RcloneServer) -> list[CatalogEntry]:
    """What is listed when the store is asked without the proxy."""
    return through(databases, server.settings).list_backups()


def test_errors_and_resets_of_the_store_are_outlived(
    databases: Databases, proxy: FaultyProxy
) -> None:
    databases.sql(ROWS)
    backup = through(databases, s3_settings(proxy.port), attempts=6)
    proxy.answers_500 = 3
    proxy.reset_after, proxy.max_resets = 1_000_000, 4
    made = backup.create_backup()
    assert proxy.resets == 4
    assert proxy.answers_500 == 0
    proxy.cut_answer_after, proxy.max_resets = 1_000_000, 6
    assert backup.verify_backup(made.id, level=Level.DECODED).problems == ()
    assert proxy.resets == 6


@pytest.mark.parametrize("phase", ["reading", "publishing"])
def test_a_store_that_goes_away_midway_leaves_nothing_listed_and_the_next_run_works(
    databases: Databases, server: RcloneServer, proxy: FaultyProxy, phase: str
) -> None:
    databases.sql(ROWS)
    backup = through(databases, s3_settings(proxy.port), attempts=2)

    def cut(step: Step) -> None:
        if step.phase == phase:
            proxy.refuse, proxy.reset_after, proxy.max_resets = True, 0, None

    with pytest.raises(StoreUnavailableError):
        backup.create_backup(control=Control(tell=cut))
    assert listed(databases, server) == []
    proxy.refuse, proxy.reset_after = False, None
    made = backup.create_backup()
    assert [entry.id for entry in listed(databases, server)] == [made.id]


def test_a_slow_store_makes_a_backup_longer_and_no_less_whole(
    databases: Databases, proxy: FaultyProxy
) -> None:
    databases.sql(ROWS)
    backup = through(databases, s3_settings(proxy.port))
    proxy.bytes_per_s = 4 * 2**20
    made = backup.create_backup()
    proxy.bytes_per_s = None
    assert backup.verify_backup(made.id, level=Level.DECODED).problems == ()


def test_a_backup_into_a_slow_store_is_cancelled_before_it_is_through(
    databases: Databases, server: RcloneServer, proxy: FaultyProxy
) -> None:
    databases.sql(ROWS)
    proxy.bytes_per_s = 2**20

    def stop(step: Step) -> None:
        if step.done:
            control.cancel()

    control = Control(tell=stop)
    with pytest.raises(BackupCancelledError):
        through(databases, s3_settings(proxy.port)).create_backup(control=control)
    assert listed(databases, server) == []


def test_two_backups_that_begin_at_once_are_one_and_a_word(databases: Databases) -> None:
    databases.sql(ROWS)
    gate = threading.Barrier(2)
    made: list[str] = []
    refused: list[str] = []

    def create() -> None:
        gate.wait(30)
        try:
            made.append(databases.backup.create_backup(control=slow()).id)
        except ConflictError as error:
            refused.append(str(error))

    def slow() -> Control:
        return Control(bytes_per_s=8 * 2**20)

    both = [threading.Thread(target=create) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join(120)
    assert len(made) == 1
    assert "another backup or restore" in refused[0]
    assert [entry.id for entry in databases.backup.list_backups()] == made


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of eight megabytes, which only root can make, and the servers may enter."""
    place = Path(tempfile.mkdtemp(prefix="samplemind-small-"))
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0711", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if made.returncode != 0:
        place.rmdir()
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        place.rmdir()


def test_a_full_disk_of_the_store_leaves_nothing_and_room_mends_it(
    databases: Databases, small_disk: Path
) -> None:
    databases.sql(ROWS)
    backup = DatabaseBackup(
        BackupConfig(backup_dir=small_disk / "store"), settings=databases.settings
    )
    with pytest.raises(StorageError, match="No space left"):
        backup.create_backup()
    assert backup.list_backups() == []
    assert [path for path in small_disk.rglob("*") if path.is_file()] == []
    databases.sql("DELETE FROM sounds WHERE id > 500")
    made = backup.create_backup()
    assert backup.verify_backup(made.id, level=Level.CHECKSUMS).ok


def test_a_full_disk_of_a_recovery_is_told_and_the_directory_is_empty_again(
    databases: Databases, small_disk: Path
) -> None:
    try:
        databases.backup.create_backup(BackupKind.PHYSICAL)
        with (
            pytest.raises(BackupError, match="No space left"),
            databases.backup.recover(RecoveryTarget(immediate=True), small_disk / "data"),
        ):
            pytest.fail("it was recovered")
    finally:
        drop_slot(databases.server)
    assert list(small_disk.iterdir()) == []


def test_a_clock_that_was_set_back_costs_no_backup(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Behind(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Behind":
            return cls.fromtimestamp(datetime.now(UTC).timestamp() - 90 * 86_400, tz)

    databases.sql(ROWS)
    first = databases.backup.create_backup()
    monkeypatch.setattr("samplemind.backup.create.datetime", Behind)
    second = databases.backup.create_backup()
    monkeypatch.undo()
    assert first.started_at - second.started_at > timedelta(days=89)
    # By its own word it is three months old, and yet the last three stay whatever their age.
    cleanup = databases.backup.cleanup_old_backups()
    assert cleanup.pruned.deleted == ()
    assert {entry.id for entry in databases.backup.list_backups()} == {first.id, second.id}
    assert databases.backup.verify_backup(second.id, level=Level.DECODED).ok
