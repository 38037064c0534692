"""Comparing MongoDB with the index and repairing what an event lost.

Both sides are streamed in id order, so memory does not grow with the library. What differs is only
marked dirty: the drain repairs it by the one path that writes the index.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.resources import Connections
from samplemind.models.search_document import SearchDocument
from samplemind.repositories.audio_files import AudioFileRepository
from samplemind.search.dirty import mark_dirty
from samplemind.search.indexer import remove_rows

_CHUNK = 1000
NO_ROW = -1


@dataclass(slots=True)
class Drift:
    """How the index differs from the library.

    Attributes:
        compared: files on either side.
        missing: files that the index does not have.
        stale: files of which the index has another revision.
        surplus: rows whose file is gone.
    """

    compared: int = 0
    missing: int = 0
    stale: int = 0
    surplus: int = 0

    @property
    def total(self) -> int:
        """How many rows are wrong."""
        return self.missing + self.stale + self.surplus


async def reconcile(connections: Connections, *, repair: bool = True) -> Drift:
    """Compare the whole library with the index; with `repair`, mark what differs as dirty.

    Raises:
        StoreUnavailableError: a store did not answer; running it again starts anew.
    """
    await connections.documents()
    drift = Drift()
    wrong: dict[UUID, int] = {}
    async with connections.postgres.session() as session:
        library = AudioFileRepository().stream_revisions()
        async for file_id, row_revision in differing(library, _indexed(session), drift):
            if repair:
                wrong[file_id] = row_revision
            if len(wrong) >= _CHUNK:
                await _repair(connections, wrong)
                wrong.clear()
    await _repair(connections, wrong)
    return drift


async def _repair(connections: Connections, wrong: Mapping[UUID, int]) -> None:
    """Mark what differs; rows from a later time than the library's go first.

    A library that was restored from a backup has lower revisions than its rows, which the index
    would otherwise keep as newer for ever.
    """
    files = await AudioFileRepository().find_many(list(wrong))
    ahead = {file.id: wrong[file.id] for file in files if file.revision < wrong[file.id]}

    async def remove(session: AsyncSession) -> int:
        return await remove_rows(session, ahead)

    await connections.postgres.run(remove, idempotent=True)
    await mark_dirty(connections.broker, list(wrong))


async def differing(
    library: AsyncIterator[tuple[UUID, int]], index: AsyncIterator[tuple[UUID, int]], drift: Drift
) -> AsyncIterator[tuple[UUID, int]]:
    """Yield each id whose two sides differ, with its row's revision (-1: it has no row).

    Both sides come in id order; what differs is counted in `drift`.
    """
    file, row = await anext(library, None), await anext(index, None)
    while file is not None or row is not None:
        drift.compared += 1
        if file is not None and (row is None or file[0] < row[0]):
            drift.missing += 1
            yield file[0], NO_ROW
            file = await anext(library, None)
        elif row is not None and (file is None or row[0] < file[0]):
            drift.surplus += 1
            yield row
            row = await anext(index, None)
        elif file is not None and row is not None:
            if row[1] != file[1]:
                drift.stale += 1
                yield row
            file, row = await anext(library, None), await anext(index, None)


async def _indexed(session: AsyncSession) -> AsyncIterator[tuple[UUID, int]]:
    query = select(SearchDocument.file_id, SearchDocument.revision).order_by(SearchDocument.file_id)
    rows = await session.stream(query.execution_options(yield_per=_CHUNK))
    async for file_id, revision in rows:
        yield file_id, revision
