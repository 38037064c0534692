"""Advisory locks by which upkeep keeps out of a backup's way, and of its own.

Invariant: they are locks of a session of PostgreSQL's, so they end with their connection, however
that ends. Upkeep asks for them and never waits: what is locked is somebody's work, and there is
another night. The two numbers of a lock are a class and an object; the classes here are the
`hashtext` of a name, computed by the server, so that any client can name them in plain SQL.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from samplemind.maintenance.session import Session

BACKUP_LOCK = "samplemind.backup"
"""Held shared by upkeep that would disturb a backup, and exclusively by a backup while it runs:
`pg_try_advisory_lock(hashtext('samplemind.backup'), 0)`."""

TABLE_LOCK = "samplemind.maintenance"
"""With a table's oid as the object: one upkeep of one table at a time."""

RETENTION_LOCK = "samplemind.retention"
"""One run of retention at a time."""

_TRY = "SELECT pg_try_advisory_lock(hashtext(%s), %s::bigint::bit(32)::int4)"
_TRY_SHARED = "SELECT pg_try_advisory_lock_shared(hashtext(%s), 0)"
_RELEASE = "SELECT pg_advisory_unlock(hashtext(%s), %s::bigint::bit(32)::int4)"
_RELEASE_SHARED = "SELECT pg_advisory_unlock_shared(hashtext(%s), 0)"


@asynccontextmanager
async def no_backup_runs(connection: Session) -> AsyncIterator[bool]:
    """Keep backups from starting during the block; yields False where one runs already."""
    async with _held(connection, _TRY_SHARED, _RELEASE_SHARED, (BACKUP_LOCK,)) as held:
        yield held


@asynccontextmanager
async def table_lock(connection: Session, oid: int) -> AsyncIterator[bool]:
    """Hold a table's upkeep for the block; yields False where somebody else does it."""
    async with _held(connection, _TRY, _RELEASE, (TABLE_LOCK, oid)) as held:
        yield held


@asynccontextmanager
async def retention_lock(connection: Session) -> AsyncIterator[bool]:
    """Hold retention for the block; yields False where another run goes on."""
    async with _held(connection, _TRY, _RELEASE, (RETENTION_LOCK, 0)) as held:
        yield held


@asynccontextmanager
async def _held(
    connection: Session, take: str, release: str, names: tuple[object, ...]
) -> AsyncIterator[bool]:
    row = await (await connection.execute(take, names)).fetchone()
    held = bool(row and next(iter(row.values())))
    try:
        yield held
    finally:
        # A connection that broke has given its locks back already.
        if held and not connection.closed:
            await connection.execute(release, names)
