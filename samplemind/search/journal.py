"""What a rebuild must know of the writers that run beside it.

Writers hold one advisory lock together; a rebuild takes it alone, for moments: when it begins, so
that every later writer sees that it runs, and when it switches generations, so that nobody writes
into the one that goes.

Invariant: while a rebuild runs, each file that a committed transaction wrote or removed is in
`search_changes`.
"""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

# "smsearch" in ASCII: any number does that nobody else locks in this database.
GENERATION_LOCK = 0x736D736561726368

_JOIN_WRITERS = text(f"SELECT pg_advisory_xact_lock_shared({GENERATION_LOCK})")
_STOP_WRITERS = text(f"SELECT pg_advisory_xact_lock({GENERATION_LOCK})")
_RECORD = text("""
INSERT INTO search_changes (file_id)
SELECT unnest(CAST(:ids AS uuid[]))
WHERE EXISTS (SELECT FROM search_rebuilds WHERE finished_at IS NULL AND failed_at IS NULL)
""")


async def join_writers(session: AsyncSession) -> None:
    """Keep the tables from being switched until the transaction ends; to be called first in it."""
    await session.execute(_JOIN_WRITERS)


async def stop_writers(session: AsyncSession) -> None:
    """Wait for every writer and keep new ones waiting until the transaction ends."""
    await session.execute(_STOP_WRITERS)


async def record_changes(session: AsyncSession, ids: Collection[UUID]) -> None:
    """Note the files for a rebuild, if one runs; the caller has joined the writers."""
    if ids:
        await session.execute(_RECORD, {"ids": list(ids)})
