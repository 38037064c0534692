"""Incremental base backups: a chain comes back whole, stays whole, and is refused where broken."""

import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from samplemind.backup.archive import prune_wal, read_coverage
from samplemind.backup.chains import find_chain
from samplemind.backup.database_backup import BackupConfig, DatabaseBackup
from samplemind.backup.manifest import BackupKind, Manifest
from samplemind.backup.scratch import RecoveryTarget
from samplemind.backup.verification import Level
from samplemind.backup.wal import drop_slot
from samplemind.errors import BackupError, ConflictError, NotFoundError
from tests.integration.recovery.conftest import Databases

ROWS = "INSERT INTO log SELECT i, repeat(md5(i::text), 30) FROM generate_series({}, {}) i"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the server's account can enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="samplemind-recovered-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture
def chain(databases: Databases) -> Iterator[tuple[Databases, list[Manifest]]]:
    """A full base backup and two incrementals, with rows written and removed between them."""
    databases.sql("CREATE TABLE log (n int PRIMARY KEY, t text)")
    try:
        databases.sql(ROWS.format(1, 3000))
        made = [databases.backup.create_backup(BackupKind.INCREMENTAL)]
        databases.sql(ROWS.format(3001, 3200))
        made.append(databases.backup.create_backup(BackupKind.INCREMENTAL))
        databases.sql("DELETE FROM log WHERE n % 100 = 0; UPDATE log SET t = 'new' WHERE n = 7")
        made.append(databases.backup.create_backup(BackupKind.INCREMENTAL))
        yield databases, made
    finally:
        drop_slot(databases.server)


def rows(backup: DatabaseBackup, target: RecoveryTarget, directory: Path) -> list[tuple]:
    with backup.recover(target, directory) as recovery, recovery.server.connect() as connection:
        return connection.execute("SELECT n, t FROM log ORDER BY n").fetchall()


def test_a_chain_is_smaller_verifies_and_recovers_to_its_end_and_to_moments_after(
    chain: tuple[Databases, list[Manifest]], place: Path
) -> None:
    databases, made = chain
    assert [each.kind for each in made] == ["physical", "incremental", "incremental"]
    assert [each.parent for each in made] == [None, made[0].id, made[1].id]
    assert "no good base backup" in made[0].remarks[0]
    assert made[1].stored_bytes < made[0].stored_bytes / 5
    everything = "SELECT n, t FROM log ORDER BY n"

    found = databases.backup.verify_backup(made[2].id, level=Level.RESTORED)
    assert found.problems == ()
    known = {entry.id: entry.verified for entry in databases.backup.list_backups()}
    levels = [event.level for each in made if (event := known[each.id]) is not None]
    assert levels == [1, 1, 3], "what the chain stands on was verified as well"

    # The base itself, without any archive.
    expected = databases.sql(everything)
    assert len(expected) == 3168
    assert rows(databases.backup, RecoveryTarget(immediate=True), place / "base") == expected

    # A moment after the newest incremental, of which the rest lies in the archive.
    databases.sql(ROWS.format(4000, 4010))
    moment = datetime.now(UTC)
    expected = databases.sql(everything)
    databases.sql("DELETE FROM log")
    databases.backup.archive_wal()
    assert rows(databases.backup, RecoveryTarget(moment=moment), place / "moment") == expected
    # Beside them the server's programs, where its account cannot reach the installed ones.
    left = {path.name for path in place.iterdir() if not path.name.startswith("programs-")}
    assert left == {"base", "moment"}

    # A drill goes the same way, and says over how many it went.
    drilled = databases.backup.drill(within_s=0, seed=1)
    assert drilled.problems == ()
    assert drilled.evidence["incrementals"] == 2


def test_damage_below_an_incremental_is_its_own_and_recovery_takes_what_is_whole(
    chain: tuple[Databases, list[Manifest]], place: Path
) -> None:
    databases, made = chain
    path = databases.folder / "data" / made[1].id / "postgres/base.tar"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    found = databases.backup.verify_backup(made[2].id, level=Level.CHECKSUMS)

    assert f"it stands on {made[1].id}: postgres/base.tar" in found.problems[0]
    assert [coverage.backup_id for coverage in databases.backup.coverage()] == [made[0].id]
    with pytest.raises(BackupError, match="which failed its verification"):
        find_chain(made[2].id, databases.backup.list_backups())
    after = databases.backup.create_backup(BackupKind.INCREMENTAL)
    assert after.parent == made[0].id, "the next one stands on the newest that is whole"
    expected = databases.sql("SELECT n, t FROM log ORDER BY n")
    assert rows(databases.backup, RecoveryTarget(immediate=True), place / "base") == expected


def test_what_an_incremental_stands_on_stays_and_a_missing_one_is_named(
    chain: tuple[Databases, list[Manifest]],
) -> None:
    databases, made = chain
    config = BackupConfig(backup_dir=databases.folder, retention_days=0)
    settings = databases.settings.model_copy(
        update={"backup": databases.settings.backup.model_copy(update={"keep_last": 0})}
    )
    cleanup = DatabaseBackup(config, settings=settings).cleanup_old_backups()
    assert cleanup.pruned.deleted == ()
    assert {reason.value for reason in cleanup.pruned.plan.keep.values()} == {
        "the last good one of its class",
        "a kept incremental stands on it",
    }

    shutil.rmtree(databases.folder / "catalog" / made[0].id)
    found = databases.backup.verify_backup(made[2].id, level=Level.SIZES)
    assert found.problems == (
        f"{made[2].id} stands on {made[0].id}, which is missing or cannot be read",
    )
    with (
        pytest.raises(NotFoundError, match="no good physical backup"),
        databases.backup.recover(RecoveryTarget(), Path("/nonexistent/there")),
    ):
        pytest.fail("it was recovered")


def test_an_incremental_whose_parent_went_meanwhile_is_not_published(
    chain: tuple[Databases, list[Manifest]],
) -> None:
    databases, made = chain
    with databases.backup._destination() as destination:
        destination.catalog.delete(made[2].id)
        orphan = made[2].model_copy(update={"parent": "20200101T000000Z-physical-gone"})
        with pytest.raises((ConflictError, BackupError)):
            destination.catalog.publish(orphan)
    assert made[2].id not in {entry.id for entry in databases.backup.list_backups()}


def test_without_summaries_or_after_enough_incrementals_a_full_one_is_taken_and_said(
    databases: Databases,
) -> None:
    databases.sql("CREATE TABLE log (n int PRIMARY KEY, t text)")
    settings = databases.settings.model_copy(
        update={"backup": databases.settings.backup.model_copy(update={"incrementals": 1})}
    )
    backup = DatabaseBackup(BackupConfig(backup_dir=databases.folder), settings=settings)
    try:
        made = [backup.create_backup(BackupKind.INCREMENTAL) for _ in range(3)]
        assert [each.kind for each in made] == ["physical", "incremental", "physical"]
        assert "has its 1 incrementals" in made[2].remarks[0]
        databases.sql("ALTER SYSTEM SET summarize_wal = off")
        databases.sql("SELECT pg_reload_conf()")
        full = backup.create_backup(BackupKind.INCREMENTAL)
        assert full.kind is BackupKind.PHYSICAL
        assert "summarize_wal = on" in full.remarks[0]
    finally:
        databases.sql("ALTER SYSTEM RESET summarize_wal")
        databases.sql("SELECT pg_reload_conf()")
        drop_slot(databases.server)


def test_wal_that_only_an_older_base_would_need_goes_and_both_still_recover(
    databases: Databases, place: Path
) -> None:
    settings = databases.settings.model_copy(
        update={"backup": databases.settings.backup.model_copy(update={"keep_days": 0})}
    )
    backup = DatabaseBackup(BackupConfig(backup_dir=databases.folder), settings=settings)
    databases.sql("CREATE TABLE log (n int PRIMARY KEY, t text)")
    try:
        old = backup.create_backup(BackupKind.PHYSICAL)
        for number in range(3):
            databases.sql(ROWS.format(number * 10, number * 10 + 9))
            backup.archive_wal()
        new = backup.create_backup(BackupKind.INCREMENTAL)
        backup.archive_wal()
        expected = databases.sql("SELECT n, t FROM log ORDER BY n")
        with backup._destination() as destination:
            # The window begins now, but for the hour by which clocks may differ.
            entries = destination.catalog.entries()
            later = datetime.now(UTC) + timedelta(hours=2)
            told = prune_wal(entries, destination.store, later, dry_run=True)
            assert prune_wal(entries, destination.store, later, dry_run=False) == told > 0
            assert prune_wal(entries, destination.store, later, dry_run=False) == 0
            coverage = read_coverage(entries, destination.store, destination.keyring, later)
        assert [(each.backup_id, each.missing) for each in coverage] == [
            (new.id, None),
            (old.id, None),
        ]
        assert rows(backup, RecoveryTarget(), place / "new") == expected
        with backup._destination() as destination:
            destination.catalog.delete(new.id)
        assert rows(backup, RecoveryTarget(immediate=True), place / "old") == []
    finally:
        drop_slot(databases.server)
