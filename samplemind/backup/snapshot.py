"""One moment of both stores: an exported PostgreSQL snapshot beside a MongoDB cluster time.

Invariant: every table that the snapshot lists is locked against DROP and ALTER for as long as it
is held, as pg_dump does it, so what was listed can be read. The gap between the two stores'
moments is measured, not assumed: both moments lie between two readings of one clock.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from psycopg import sql

from samplemind.backup.mongo import MongoSource
from samplemind.backup.postgres_tools import Server
from samplemind.backup.relations import (
    SequencePlace,
    Table,
    count_large_objects,
    database_bytes,
    list_extensions,
    list_materialized_views,
    list_sequences,
    list_tables,
)
from samplemind.errors import ConflictError, PermanentError, TransientError

_LOCK_ATTEMPTS = 5
_LOCK_TIMEOUT_MS = 10_000


@dataclass(frozen=True)
class Snapshot:
    """What PostgreSQL holds at one moment, for as long as the connection is open."""

    connection: psycopg.Connection
    server: Server
    id: str
    lsn: str
    taken_at: datetime
    not_before: float
    """Reading of this process's monotonic clock before the moment."""
    server_version: str
    major: int
    schema_revision: str | None
    database_bytes: int
    tables: tuple[Table, ...]
    sequences: tuple[SequencePlace, ...]
    views: tuple[tuple[str, str], ...]
    extensions: dict[str, str]
    large_objects: int


@dataclass(frozen=True)
class Barrier:
    """Both stores' moments, and how far apart they may be at most."""

    postgres: Snapshot
    mongo: MongoSource | None
    gap_ms: float


@contextmanager
def hold_barrier(server: Server, mongo: MongoSource | None) -> Iterator[Barrier]:
    """Take both stores at one moment and hold it for the block.

    Raises:
        TransientError: tables were changed or locked again and again while it was tried.
        StoreUnavailableError: a store did not answer.
    """
    with hold_snapshot(server) as snapshot:
        gap_ms = 0.0
        if mongo is not None:
            mongo.pin()
            # Both moments lie between these two readings of one clock, the servers' own do not
            # matter.
            gap_ms = (time.monotonic() - snapshot.not_before) * 1000
        yield Barrier(snapshot, mongo, round(gap_ms, 3))


@contextmanager
def hold_snapshot(server: Server) -> Iterator[Snapshot]:
    """Export a snapshot of PostgreSQL and hold it for the block, with its tables locked.

    Raises:
        TransientError: tables were changed or locked again and again while it was tried.
        StoreUnavailableError: the server did not answer.
    """
    with server.connect(autocommit=False, lock_timeout=str(_LOCK_TIMEOUT_MS)) as connection:
        yield _take(connection, server)
        connection.rollback()


def join_snapshot(connection: psycopg.Connection, snapshot_id: str) -> None:
    """Let a connection outside of any transaction read what the snapshot sees."""
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot_id)))
    # A policy on rows must stop a backup and not make it smaller.
    connection.execute("SET row_security = off")


def _take(connection: psycopg.Connection, server: Server) -> Snapshot:
    for _ in range(_LOCK_ATTEMPTS):
        connection.rollback()
        tables = list_tables(connection)
        connection.rollback()
        try:
            return _lock_and_export(connection, server, tables)
        except (psycopg.errors.UndefinedTable, ConflictError):
            continue  # created or dropped between the listing and the locks
        except psycopg.errors.LockNotAvailable:
            continue
        except psycopg.errors.InsufficientPrivilege as error:
            message = f"the backup's role may not read every table: {error.diag.message_primary}"
            raise PermanentError(message) from error
    message = "tables were changed or locked again and again while the backup began"
    raise TransientError(message)


def _lock_and_export(
    connection: psycopg.Connection, server: Server, expected: list[Table]
) -> Snapshot:
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    if expected:
        # LOCK takes no snapshot: the first query after it does.
        names = sql.SQL(", ").join(table.identifier for table in expected)
        connection.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE").format(names))
    not_before = time.monotonic()
    row = connection.execute(
        "SELECT pg_export_snapshot(), clock_timestamp(), "
        "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() "
        "ELSE pg_current_wal_insert_lsn() END::text, current_setting('server_version'), "
        "to_regclass('public.alembic_version') IS NOT NULL"
    ).fetchone()
    assert row is not None  # noqa: S101 - a query without FROM has one row
    snapshot_id, taken_at, lsn, version, migrated = row
    connection.execute("SET row_security = off")
    tables = list_tables(connection)
    if {table.qualified_name for table in tables} != {table.qualified_name for table in expected}:
        message = "tables came or went while they were being locked"
        raise ConflictError(message)
    return Snapshot(
        connection=connection,
        server=server,
        id=snapshot_id,
        lsn=lsn,
        taken_at=taken_at.astimezone(UTC),
        not_before=not_before,
        server_version=version,
        major=connection.info.server_version // 10_000,
        schema_revision=_revision(connection) if migrated else None,
        database_bytes=database_bytes(connection),
        tables=tuple(tables),
        sequences=tuple(list_sequences(connection)),
        views=tuple(list_materialized_views(connection)),
        extensions=list_extensions(connection),
        large_objects=count_large_objects(connection),
    )


def _revision(connection: psycopg.Connection) -> str | None:
    row = connection.execute("SELECT version_num FROM public.alembic_version").fetchone()
    return None if row is None else str(row[0])
