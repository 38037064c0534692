"""Moving fresh vectors into the table that has the approximate index.

Inserting into an HNSW graph takes milliseconds a vector, so new vectors wait in
`search_vectors_fresh`, where they are found by comparing, and are moved in small transactions.

Invariant: a vector is moved in one statement, so that it is in exactly one of the tables at every
commit, and a fold that dies at any moment has moved whole batches. What a writer is changing is
skipped, never waited for; several folds share the work.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.resources import Connections
from samplemind.search.journal import join_writers

# Where a vector is in both tables against the invariant, the fresh one is the newer.
_MOVE = text("""
WITH picked AS MATERIALIZED (
    SELECT file_id FROM search_vectors_fresh LIMIT :batch FOR UPDATE SKIP LOCKED
), moved AS (
    DELETE FROM search_vectors_fresh AS fresh USING picked
    WHERE fresh.file_id = picked.file_id
    RETURNING fresh.file_id, fresh.owner_id, fresh.embedding_version, fresh.embedding
)
INSERT INTO search_vectors AS main (file_id, owner_id, embedding_version, embedding)
SELECT file_id, owner_id, embedding_version, embedding FROM moved
ON CONFLICT (file_id) DO UPDATE
SET owner_id = excluded.owner_id, embedding_version = excluded.embedding_version,
    embedding = excluded.embedding
""")
_WAITING = text("SELECT count(*) FROM search_vectors_fresh")


@dataclass(frozen=True, slots=True)
class FoldReport:
    """How many vectors were moved, and how many wait (some may be new since)."""

    folded: int
    waiting: int


async def fold_vectors(
    connections: Connections,
    *,
    at_most: int | None = None,
    within_s: float | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> FoldReport:
    """Move fresh vectors until none waits, `at_most` are moved, or the time is up.

    Args:
        connections: to the stores.
        at_most: vectors to move; none: all.
        within_s: seconds after which no further batch is begun; none: no such bound.
        progress: called after each batch with the number moved so far.

    Raises:
        StoreUnavailableError: PostgreSQL did not answer; running it again goes on.
    """
    batch = connections.settings.search.fold_batch
    deadline = None if within_s is None else time.monotonic() + within_s
    folded = 0
    while at_most is None or folded < at_most:
        if deadline is not None and time.monotonic() >= deadline:
            break
        size = batch if at_most is None else min(batch, at_most - folded)

        async def move(session: AsyncSession, size: int = size) -> int:
            await join_writers(session)
            moved = await session.execute(_MOVE, {"batch": size})
            return int(moved.rowcount)  # type: ignore[attr-defined]

        moved = await connections.postgres.run(move, idempotent=True)
        if not moved:
            break
        folded += moved
        progress(folded)
    async with connections.postgres.session() as session:
        return FoldReport(folded, await count_fresh(session))


async def count_fresh(session: AsyncSession) -> int:
    """Return how many vectors are not in the approximate index yet."""
    return int(await session.scalar(_WAITING) or 0)
