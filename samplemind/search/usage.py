"""Counting plays and downloads, which lift a file's quality at its next indexing.

Invariant: counting writes only `search_usage`, never an indexed row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.errors import InvalidInputError

# In the order of the ids, so that two callers lock rows in one order.
_COUNT = text("""
INSERT INTO search_usage AS present (file_id, plays, downloads, updated_at)
SELECT file_id, plays, downloads, statement_timestamp()
FROM unnest(CAST(:ids AS uuid[]), CAST(:plays AS bigint[]), CAST(:downloads AS bigint[]))
     AS counted (file_id, plays, downloads)
ORDER BY file_id
ON CONFLICT (file_id) DO UPDATE
SET plays = present.plays + excluded.plays, downloads = present.downloads + excluded.downloads,
    updated_at = excluded.updated_at
""")
_FORGET = text("""
DELETE FROM search_usage AS used
WHERE updated_at < statement_timestamp() - CAST(:age AS interval)
  AND NOT EXISTS (SELECT FROM search_documents AS d WHERE d.file_id = used.file_id)
""")


@dataclass(frozen=True, slots=True)
class Uses:
    """How often a file was played and downloaded since the last count."""

    plays: int = 0
    downloads: int = 0


async def count_uses(session: AsyncSession, uses: Mapping[UUID, Uses]) -> None:
    """Add to the counters of many files in one statement.

    Raises:
        InvalidInputError: a count is negative.
    """
    if not uses:
        return
    if any(use.plays < 0 or use.downloads < 0 for use in uses.values()):
        message = "plays and downloads are counted upwards: a count must not be negative"
        raise InvalidInputError(message)
    await session.execute(
        _COUNT,
        {
            "ids": list(uses),
            "plays": [use.plays for use in uses.values()],
            "downloads": [use.downloads for use in uses.values()],
        },
    )


async def forget_unused(session: AsyncSession, *, older_than: timedelta) -> int:
    """Drop counters of files that left the index and were not used since; return how many."""
    forgotten = await session.execute(_FORGET, {"age": older_than})
    return int(forgotten.rowcount)  # type: ignore[attr-defined]
