"""The drill (L4): recovery to a random moment, compared row by row with the source at that moment.

At the moment, every table is locked against writers for as long as it takes to export a snapshot
and to read the position in WAL: exactly what lies before that position is in the snapshot. The
rows are hashed inside the snapshot while writers go on. Then the archive is brought up to date,
the newest base is recovered to the position, and its tables are hashed in the same way.

Where no physical backup exists, the newest logical one is restored instead and compared with the
fingerprints of its manifest.

Invariant: the live servers are only read, and writers wait a few milliseconds at most; who cannot
get the locks in time tries again. What was measured is kept as evidence, in failure as in success.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from samplemind.backup.archive import archive_wal, choose_base, read_coverage
from samplemind.backup.control import Control
from samplemind.backup.create import Destination
from samplemind.backup.manifest import Manifest
from samplemind.backup.objects import ObjectReader
from samplemind.backup.postgres_tools import Server
from samplemind.backup.proof import check_tables, question, restored_scratch
from samplemind.backup.recovery import recovered
from samplemind.backup.relations import Fingerprint, Table, fingerprint, list_tables
from samplemind.backup.scratch import RecoveryTarget
from samplemind.backup.snapshot import join_snapshot
from samplemind.backup.workspace import workspace
from samplemind.errors import NotFoundError, PermanentError, TransientError

_LOCK_TIMEOUT_MS = 200
_LOCK_ATTEMPTS = 50


@dataclass(frozen=True)
class Witness:
    """What the source held at one position of its WAL."""

    lsn: str
    moment: datetime
    tables: dict[str, Fingerprint]
    paused_ms: float
    """For how long writers had to wait at most."""


@dataclass(frozen=True)
class DrillResult:
    """What a drill found and measured."""

    backup_id: str
    problems: tuple[str, ...]
    evidence: dict[str, Any]


def run_drill(
    server: Server,
    destination: Destination,
    spool: Path,
    control: Control,
    *,
    within_s: float = 5.0,
    seed: int | None = None,
) -> DrillResult:
    """Recover to a random moment of the next seconds and compare; needs a physical backup.

    Args:
        server: the source, which is read.
        destination: the store with the base backups and the archive.
        spool: the archiver's.
        control: cancellation and progress.
        within_s: the moment is chosen within so many seconds from now.
        seed: chooses the same moment again.

    Raises:
        NotFoundError: there is no physical backup.
        TransientError: the tables could not be locked for an instant, again and again.
    """
    entries = destination.catalog.entries()
    chain = choose_base(entries, RecoveryTarget())
    behind_s = _behind_s(destination)
    wait_s = random.Random(seed).uniform(0, within_s)  # noqa: S311 - a moment is no secret
    control.begin("waiting for the moment")
    control.pause(wait_s)
    control.begin("hashing the source")
    witness = take_witness(server)
    archive_wal(server, destination, spool)
    began = time.monotonic()
    problems: list[str] = []
    evidence: dict[str, Any] = {
        "method": "recovery to a position in WAL",
        "moment": witness.moment.isoformat(),
        "lsn": witness.lsn,
        "incrementals": len(chain) - 1,
        "data_loss_window_s": behind_s,
        "writers_paused_ms": witness.paused_ms,
        "tables": {name: each.digest for name, each in witness.tables.items()},
        "rows": sum(each.rows for each in witness.tables.values()),
    }
    try:
        with (
            _directory() as directory,
            recovered(
                destination.catalog,
                server,
                RecoveryTarget(lsn=witness.lsn),
                directory,
                control,
                durable=False,
            ) as recovery,
        ):
            evidence["recovery_s"] = round(time.monotonic() - began, 3)
            evidence["reached_lsn"] = recovery.reached.lsn
            evidence["segments"] = recovery.segments
            control.begin("comparing")
            problems += _compare(recovery.server, witness)
            problems += check_tables(recovery.server)
    except PermanentError as error:
        problems.append(str(error))
    return DrillResult(chain[-1].id, tuple(problems), evidence)


def run_logical_drill(
    manifest: Manifest, destination: Destination, control: Control
) -> DrillResult:
    """Restore a logical backup into scratch servers, compare and measure."""
    reader = ObjectReader(destination.store, manifest.id, destination.catalog.data_key(manifest))
    age = datetime.now(UTC) - manifest.started_at
    evidence: dict[str, Any] = {
        "method": "restore of a logical backup",
        "moment": manifest.started_at.isoformat(),
        "data_loss_window_s": round(age.total_seconds(), 3),
    }
    began = time.monotonic()
    problems: list[str] = []
    try:
        with restored_scratch(manifest, reader, control) as (server, documents):
            evidence["recovery_s"] = round(time.monotonic() - began, 3)
            control.begin("comparing")
            problems += question(manifest, server, documents)
    except PermanentError as error:
        problems.append(str(error))
    return DrillResult(manifest.id, tuple(problems), evidence)


def take_witness(server: Server) -> Witness:
    """Hash every table at one position of the WAL.

    Raises:
        TransientError: the locks could not be had for an instant, again and again.
    """
    with server.connect() as reader:
        for _ in range(_LOCK_ATTEMPTS):
            with server.connect(autocommit=False, lock_timeout=str(_LOCK_TIMEOUT_MS)) as holder:
                tables = list_tables(holder)
                holder.rollback()
                try:
                    lsn, moment, paused_ms = _meet(holder, reader, tables)
                except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                    continue
                except psycopg.errors.UndefinedTable:
                    continue  # dropped after it was listed
            hashes = {
                table.qualified_name: fingerprint(reader, table, modulus=1) for table in tables
            }
            return Witness(lsn, moment, hashes, paused_ms)
    message = "the tables are never free of writers for an instant: drill at a quieter hour"
    raise TransientError(message)


def _meet(
    holder: psycopg.Connection, reader: psycopg.Connection, tables: list[Table]
) -> tuple[str, datetime, float]:
    """Let the reader join a snapshot that holds exactly what lies before a position in WAL."""
    holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    began = time.monotonic()
    if tables:
        names = sql.SQL(", ").join(table.identifier for table in tables)
        # Waits for writers that are in a transaction, and keeps new ones waiting.
        holder.execute(sql.SQL("LOCK TABLE ONLY {} IN SHARE MODE").format(names))
    row = holder.execute(
        "SELECT pg_export_snapshot(), pg_current_wal_insert_lsn()::text, clock_timestamp()"
    ).fetchone()
    assert row is not None  # noqa: S101 - a query without FROM has one row
    join_snapshot(reader, row[0])
    reader.execute("SELECT 1")
    holder.rollback()
    return row[1], row[2].astimezone(UTC), round((time.monotonic() - began) * 1000, 3)


def _compare(server: Server, witness: Witness) -> Iterator[str]:
    with server.connect() as connection:
        tables = {table.qualified_name: table for table in list_tables(connection)}
        for name in sorted(witness.tables.keys() | tables.keys()):
            if name not in tables:
                yield f"{name} is missing after the recovery"
            elif name not in witness.tables:
                yield f"{name} is there after the recovery and was not at the moment"
            elif fingerprint(connection, tables[name], modulus=1) != witness.tables[name]:
                yield f"{name} holds other rows than at the moment"


def _behind_s(destination: Destination) -> float | None:
    """Return how much would have been lost had the source been lost just now."""
    catalog = destination.catalog
    try:
        now = catalog.now()
        coverage = read_coverage(catalog.entries(), catalog.store, catalog.keyring, now)[0]
    except (IndexError, NotFoundError):
        return None
    until = coverage.to_time or coverage.from_time
    return round((catalog.now() - until).total_seconds(), 3)


@contextmanager
def _directory() -> Iterator[Path]:
    with workspace("drill") as folder:
        folder.chmod(0o711)  # the server's account must get in
        yield folder / "data"
