"""A job that is killed at any moment leaves no half backup, and the next one works.

SAMPLEMIND_BACKUP_KILLS says how many seeded trials are made (50 is the full number).
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from samplemind.backup.manifest import BackupKind
from samplemind.backup.verification import Level
from samplemind.backup.wal import drop_slot
from tests.integration.recovery.conftest import Databases

# Read before the run's own fixtures clear the operator's variables.
TRIALS = int(os.environ.get("SAMPLEMIND_BACKUP_KILLS", "3"))
JOB = Path(__file__).with_name("killed_job.py")
ROWS = (
    "CREATE TABLE sounds (id int PRIMARY KEY, title text);"
    "INSERT INTO sounds SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 30000) i"
)


def start(databases: Databases, *arguments: str) -> subprocess.Popen[bytes]:
    settings = databases.settings
    assert settings.postgres.url is not None
    assert settings.mongo.url is not None
    environment = {
        **os.environ,
        "SAMPLEMIND_HOME": str(settings.home),
        "SAMPLEMIND_POSTGRES_URL": settings.postgres.url.get_secret_value(),
        "SAMPLEMIND_MONGO_URL": settings.mongo.url.get_secret_value(),
        "SAMPLEMIND_MONGO_DATABASE": settings.mongo.database,
        "SAMPLEMIND_STORAGE_PATH": str(databases.folder),
        # Slow enough for a kill to meet it at work.
        "SAMPLEMIND_BACKUP_RATE_LIMIT_MIB_S": "40",
    }
    process = subprocess.Popen(
        [sys.executable, str(JOB), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def kill_after(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Kill it, and return whether it had ended before by itself."""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    code = process.wait()
    if process.stdout is not None:
        process.stdout.close()
    assert code in (0, -9)
    return code == 0


@pytest.fixture
def without_slot(databases: Databases) -> Iterator[None]:
    """Base backups begin an archive on the run's server, which others use."""
    yield
    _until_unlocked(databases)
    drop_slot(databases.server)


@pytest.mark.timeout(60 * max(3, TRIALS))
@pytest.mark.usefixtures("without_slot")
@pytest.mark.parametrize("kind", [BackupKind.LOGICAL, BackupKind.INCREMENTAL])
def test_a_kill_at_any_moment_leaves_whole_backups_only(
    databases: Databases, kind: BackupKind
) -> None:
    databases.sql(ROWS)
    chance = random.Random(7)
    ended = 0
    for _ in range(TRIALS):
        ended += kill_after(start(databases, "create", kind), chance.uniform(0.0, 1.6))
        # Whatever is listed is whole, down to the last byte.
        for entry in databases.backup.list_backups():
            found = databases.backup.verify_backup(entry.id, level=Level.DECODED)
            assert found.problems == ()
    listed = len(databases.backup.list_backups())
    assert listed >= ended
    _until_unlocked(databases)
    made = databases.backup.create_backup(kind)
    with databases.backup._destination() as destination:
        destination.catalog.store.abort_uploads("", timedelta(0))
        for leftover in destination.catalog.leftovers(timedelta(0)):
            destination.catalog.delete(leftover.id)
    ids = {entry.id for entry in databases.backup.list_backups()}
    assert len(ids) == listed + 1
    assert made.id in ids
    folders = {name.split("/")[1] for name in databases.names() if name.startswith("data/")}
    assert folders == ids


@pytest.mark.timeout(60 * max(3, TRIALS))
def test_a_restore_that_was_killed_is_repeated_to_the_end(databases: Databases) -> None:
    databases.sql(ROWS)
    made = databases.backup.create_backup()
    copy = f"{databases.server.database}_copy"
    chance = random.Random(11)
    for _ in range(max(1, TRIALS // 2)):
        kill_after(start(databases, "restore", made.id, copy), chance.uniform(0.1, 1.6))
        # What is to be replaced stays until all of it can be.
        if databases.sql("SELECT 1 FROM pg_database WHERE datname = %s", copy):
            there = databases.sql("SELECT to_regclass('sounds') IS NOT NULL", database=copy)
            rows = "SELECT count(*) FROM sounds"
            assert not there[0][0] or databases.sql(rows, database=copy) == [(30_000,)]
    process = start(databases, "restore", made.id, copy)
    assert process.wait(60) == 0
    beside = "SELECT count(*) FROM pg_database WHERE starts_with(datname, %s)"
    assert databases.sql(beside, f"{copy[:24]}_") == [(0,)]
    everything = "SELECT count(*), sum(hashtext(s::text)) FROM sounds s"
    assert databases.sql(everything, database=copy) == databases.sql(everything)


def _until_unlocked(databases: Databases) -> None:
    # The server notices within moments that its client was killed.
    deadline = time.monotonic() + 20
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid "
    locks += "FROM pg_database WHERE datname = current_database())"
    while databases.sql(locks) != [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
