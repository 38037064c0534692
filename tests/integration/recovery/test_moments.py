"""Recovery to a moment: exactly the rows of that moment, and no gap that is skipped.

SAMPLEMIND_BACKUP_MOMENTS says to how many seeded moments (20 is the full number).
"""

import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from samplemind.backup.database_backup import DatabaseBackup
from samplemind.backup.manifest import BackupKind
from samplemind.backup.scratch import RecoveryTarget
from samplemind.backup.wal import drop_slot
from samplemind.errors import BackupError, ConflictError, InvalidInputError, NotFoundError
from samplemind.settings import Settings
from tests.integration.recovery.conftest import Databases

MOMENTS = int(os.environ.get("SAMPLEMIND_BACKUP_MOMENTS", "2"))
COMMITS = 40


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the server's account can enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="samplemind-recovered-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture
def archived(databases: Databases) -> Iterator[Databases]:
    databases.sql("CREATE TABLE log (n int PRIMARY KEY, t text)")
    databases.backup.create_backup(BackupKind.PHYSICAL)
    try:
        yield databases
    finally:
        drop_slot(databases.server)


def rows_at(backup: DatabaseBackup, target: RecoveryTarget, directory: Path) -> list[int]:
    with (
        backup.recover(target, directory) as recovery,
        recovery.server.connect() as connection,
    ):
        return [n for (n,) in connection.execute("SELECT n FROM log ORDER BY n").fetchall()]


@pytest.mark.timeout(60 * max(3, MOMENTS))
def test_exactly_the_rows_of_a_moment_come_back(archived: Databases, place: Path) -> None:
    chance = random.Random(23)
    held: set[int] = set()
    moments: list[tuple[datetime, list[int]]] = []
    with archived.server.connect() as connection:
        for n in range(COMMITS):
            connection.execute("INSERT INTO log VALUES (%s, repeat('x', 2000))", (n,))
            held.add(n)
            if n % 4 == 3:
                gone = chance.choice(sorted(held))
                connection.execute("DELETE FROM log WHERE n = %s", (gone,))
                held.discard(gone)
            # Commits stand apart by more than a clock's tick, so a moment between two is certain.
            time.sleep(0.002)
            moments.append((datetime.now(UTC), sorted(held)))
            time.sleep(0.002)
            if n in (COMMITS // 3, COMMITS // 2):
                archived.backup.archive_wal()
        connection.execute("DROP TABLE log")
    archived.backup.archive_wal()

    for number, (moment, expected) in enumerate(chance.sample(moments, min(MOMENTS, COMMITS))):
        directory = place / f"recovered-{number}"
        found = rows_at(archived.backup, RecoveryTarget(moment=moment), directory)
        assert found == expected, moment


def test_a_gap_and_a_moment_beyond_the_archive_are_told_before_anything_is_unpacked(
    archived: Databases, place: Path
) -> None:
    directory = place / "recovered"
    backup = archived.backup
    before = RecoveryTarget(moment=datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(NotFoundError, match="no good physical backup from before"):
        rows_at(backup, before, directory)
    for _ in range(3):
        archived.sql("INSERT INTO log SELECT coalesce(max(n), 0) + 1, 'x' FROM log")
        backup.archive_wal()
    late = RecoveryTarget(moment=datetime.now(UTC) + timedelta(hours=1))
    with pytest.raises(InvalidInputError, match="the archive ends at"):
        rows_at(backup, late, directory)

    segments = sorted(path for path in archived.folder.glob("wal/*/*/*") if len(path.name) == 24)
    segments[-2].unlink()
    (coverage,) = backup.coverage()
    assert coverage.missing == segments[-2].name
    with pytest.raises(BackupError, match=f"{segments[-2].name}, which is missing"):
        rows_at(backup, RecoveryTarget(), directory)
    assert not directory.exists()


def test_the_command_recovers_into_a_new_directory_and_shows_what_it_reached(
    archived: Databases, place: Path, stack: Settings
) -> None:
    archived.sql("INSERT INTO log VALUES (1, 'x')")
    moment = datetime.now(UTC)
    archived.sql("INSERT INTO log VALUES (2, 'x')")
    archived.backup.archive_wal()
    to = ("--to", f"{moment:%Y-%m-%d %H:%M:%S.%f+00}", "--json")
    ways = (
        (("pitr", *to), place / "home" / "data"),
        (("pitr", "restore", *to, "--into", str(place / "chosen")), place),
    )
    for arguments, parent in ways:
        found = json.loads(
            archived.command("backup", *arguments, broker=stack.broker, home=place / "home")
        )
        directory = Path(found["directory"])
        assert directory.parent == parent
        assert (directory / "PG_VERSION").is_file()
        assert datetime.fromisoformat(found["reached_commit"]) <= moment


def test_the_archive_goes_on_after_its_server_was_restored(archived: Databases) -> None:
    archived.backup.archive_wal()
    [spool] = {path.parent for path in archived.settings.home.rglob("*.partial")}
    # What a server leaves that was further than the one that took its place.
    [begun] = spool.glob("*.partial")
    begun.rename(spool / f"{begun.name[:8]}0000000F00000000.partial")
    (before,) = archived.backup.coverage()
    archived.sql("INSERT INTO log VALUES (1, 'x')")
    archived.backup.archive_wal()
    (after,) = archived.backup.coverage()
    assert (after.last_segment or "") > (before.last_segment or "")
    assert after.missing is None


def test_a_directory_with_anything_in_it_is_refused(archived: Databases, place: Path) -> None:
    (place / "mine").write_text("precious")
    with pytest.raises(ConflictError, match="not empty"):
        rows_at(archived.backup, RecoveryTarget(immediate=True), place)
    assert (place / "mine").read_text() == "precious"


def test_a_drill_under_writers_finds_every_row_and_keeps_its_evidence(
    archived: Databases,
) -> None:
    archived.sql("INSERT INTO log SELECT i, 'x' FROM generate_series(1, 1000) i")
    found = archived.backup.drill(within_s=0.2, seed=1)

    assert found.problems == ()
    (entry,) = archived.backup.list_backups()
    assert entry.drilled is not None
    assert entry.drilled.evidence["rows"] == 1000
    assert entry.drilled.evidence["recovery_s"] > 0


def test_without_a_physical_backup_there_is_no_archive(databases: Databases) -> None:
    assert databases.backup.archive_wal() is None
    assert databases.backup.archive_lag() is None
    with pytest.raises(NotFoundError):
        rows_at(databases.backup, RecoveryTarget(), Path("/nonexistent"))
