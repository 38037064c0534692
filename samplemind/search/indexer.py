"""Writing the index: from dirty ids to committed rows.

A drain claims ids, reads their documents, merges their rows in one statement and only then forgets
the ids. Every step may run twice. A row is replaced only by a higher revision of its file, so an
unchanged file costs no write and a late drain undoes nothing. A file that is gone from MongoDB, or
whose new content was refused, goes from the index.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import psycopg
from sqlalchemy import delete, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.resources import Connections
from samplemind.documents.audio_file import AudioFile
from samplemind.models.search_document import SearchDocument
from samplemind.repositories.analyses import AnalysisRepository
from samplemind.repositories.audio_files import AudioFileRepository
from samplemind.search.dirty import claim_dirty, forget_dirty
from samplemind.search.rows import COLUMNS, index_row, is_searchable

CHUNK = 1000
_LEASE = timedelta(seconds=60)

_STAGING = "search_staging"
_CREATE_STAGING = (
    f"CREATE TEMPORARY TABLE {_STAGING} "
    f"({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())}) ON COMMIT DROP"
)
_COPY = f"COPY {_STAGING} ({', '.join(COLUMNS)}) FROM STDIN"
_PLAIN = [name for name in COLUMNS if not name.endswith("_words") and name != "embedding"]
_CHANGED = [*(name for name in _PLAIN if name != "file_id"), "embedding", "words", "indexed_at"]
# Ordered by id, so that two drains that share files lock rows in one order.
_MERGE = f"""
INSERT INTO search_documents AS present ({", ".join(_PLAIN)}, embedding, words, indexed_at)
SELECT {", ".join(_PLAIN)}, embedding::halfvec,
       setweight(to_tsvector('samplemind', title_words), 'A') ||
       setweight(to_tsvector('samplemind', tag_words), 'B') ||
       setweight(to_tsvector('samplemind', pack_words), 'C') ||
       setweight(to_tsvector('samplemind', path_words), 'D'),
       statement_timestamp()
FROM {_STAGING} ORDER BY file_id
ON CONFLICT (file_id) DO UPDATE
SET {", ".join(f"{name} = excluded.{name}" for name in _CHANGED)}
WHERE present.revision < excluded.revision
"""  # noqa: S608  # every name in it is a constant above


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What one call did: ids looked at, rows written, rows removed."""

    seen: int = 0
    written: int = 0
    removed: int = 0

    def __add__(self, other: "IndexReport") -> "IndexReport":
        return IndexReport(
            self.seen + other.seen, self.written + other.written, self.removed + other.removed
        )


async def drain(connections: Connections, *, at_most: int = 100_000) -> IndexReport:
    """Index dirty files until none waits, or `at_most` are done.

    Raises:
        StoreUnavailableError: a store did not answer; what was claimed returns by its lease.
    """
    report = IndexReport()
    while report.seen < at_most:
        claim = await claim_dirty(connections.broker, limit=CHUNK, lease=_LEASE)
        if not claim.ids:
            break
        report += await index_files(connections, claim.ids)
        await forget_dirty(connections.broker, claim)
    return report


async def index_files(connections: Connections, ids: Sequence[UUID]) -> IndexReport:
    """Bring the rows of these files up to date, in one transaction."""
    files = await _searchable(connections, ids)
    wanted = [file.analysis_id for file in files if file.analysis_id is not None]
    analyses = {analysis.id: analysis for analysis in await AnalysisRepository().find_many(wanted)}
    rows = [
        index_row(file, analyses.get(file.analysis_id) if file.analysis_id else None)
        for file in files
    ]
    gone = set(ids) - {file.id for file in files}

    async def write(session: AsyncSession) -> IndexReport:
        removed = await _remove_gone(connections, session, gone)
        return IndexReport(len(ids), await _merge(session, rows), removed)

    return await connections.postgres.run(write, idempotent=True)


async def remove_rows(session: AsyncSession, rows: Mapping[UUID, int]) -> int:
    """Remove the rows that still have these revisions; one that was written since then stays."""
    if not rows:
        return 0
    seen = tuple_(SearchDocument.file_id, SearchDocument.revision).in_(list(rows.items()))
    removed = await session.execute(delete(SearchDocument).where(seen))
    return int(removed.rowcount)  # type: ignore[attr-defined]


async def _searchable(connections: Connections, ids: Collection[UUID]) -> list[AudioFile]:
    await connections.documents()
    files = await AudioFileRepository().find_many(list(ids))
    return [file for file in files if is_searchable(file)]


async def _remove_gone(connections: Connections, session: AsyncSession, gone: set[UUID]) -> int:
    # The rows are read before the library is asked again: whoever has brought a file back since
    # either shows in the library or has written another revision.
    if not gone:
        return 0
    found = await session.execute(
        select(SearchDocument.file_id, SearchDocument.revision).where(
            SearchDocument.file_id.in_(gone)
        )
    )
    rows = {row.file_id: row.revision for row in found}
    for file in await _searchable(connections, rows):
        del rows[file.id]
    return await remove_rows(session, rows)


async def _merge(session: AsyncSession, rows: Sequence[tuple[Any, ...]]) -> int:
    if not rows:
        return 0
    connection = await session.connection()
    await connection.execute(text(_CREATE_STAGING))
    raw = await connection.get_raw_connection()
    driver = cast("psycopg.AsyncConnection[Any]", raw.driver_connection)
    async with driver.cursor() as cursor:
        async with cursor.copy(_COPY.encode()) as copy:
            copy.set_types(list(COLUMNS.values()))
            for row in rows:
                await copy.write_row(row)
        await cursor.execute(_MERGE.encode())
        return cursor.rowcount
