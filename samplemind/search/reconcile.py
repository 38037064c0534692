"""Comparing MongoDB with the index and repairing what an event lost.

Both sides are streamed in id order, so memory does not grow with the library. What differs is only
marked dirty: the drain repairs it by the one path that writes the index.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.resources import Connections
from samplemind.errors import ConflictError
from samplemind.models.search_document import SearchDocument
from samplemind.repositories.audio_files import AudioFileRepository
from samplemind.search.dirty import mark_dirty
from samplemind.search.indexer import remove_rows

_CHUNK = 1000
NO_ROW = -1
_FEW_SURPLUS = 100
_FEW_SURPLUS_SHARE = 0.1


class Difference(NamedTuple):
    """A file whose sides differ: its row's revision, and whether the row has no file at all."""

    file_id: UUID
    row_revision: int = NO_ROW
    surplus: bool = False


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


async def reconcile(connections: Connections, *, repair: bool = True, force: bool = False) -> Drift:
    """Compare the whole library with the index; with `repair`, mark what differs as dirty.

    Rows without a file go only while they are few, or with `force`: many of them say that this is
    not the library from which the index was made.

    Raises:
        ConflictError: many rows have no file; everything else was marked.
        StoreUnavailableError: a store did not answer; running it again starts anew.
    """
    await connections.documents()
    drift = Drift()
    wrong: dict[UUID, int] = {}
    surplus: list[UUID] = []
    async with connections.postgres.session() as session:
        library = AudioFileRepository().stream_revisions()
        async for found in differing(library, _indexed(session), drift):
            if not repair:
                continue
            if found.surplus:
                surplus.append(found.file_id)
            else:
                wrong[found.file_id] = found.row_revision
            if len(wrong) >= _CHUNK:
                await _repair(connections, wrong)
                wrong.clear()
    if repair:
        await _repair(connections, wrong)
        _refuse_another_library(drift, force=force)
        await mark_dirty(connections.broker, surplus)
    return drift


def _refuse_another_library(drift: Drift, *, force: bool) -> None:
    most = max(_FEW_SURPLUS, round(drift.compared * _FEW_SURPLUS_SHARE))
    if drift.surplus > most and not force:
        message = (
            f"{drift.surplus} of {drift.compared} rows of the index belong to no file of this "
            "library, so they were left: check SAMPLEMIND_MONGO_URL and SAMPLEMIND_POSTGRES_URL; "
            "if the files are really gone, `samplemind index reconcile --force` removes the rows"
        )
        raise ConflictError(message)


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
) -> AsyncIterator[Difference]:
    """Yield where the two sides differ, and count it in `drift`; both come in id order."""
    file, row = await anext(library, None), await anext(index, None)
    while file is not None or row is not None:
        drift.compared += 1
        if file is not None and (row is None or file[0] < row[0]):
            drift.missing += 1
            yield Difference(file[0])
            file = await anext(library, None)
        elif row is not None and (file is None or row[0] < file[0]):
            drift.surplus += 1
            yield Difference(*row, surplus=True)
            row = await anext(index, None)
        elif file is not None and row is not None:
            if row[1] != file[1]:
                drift.stale += 1
                yield Difference(*row)
            file, row = await anext(library, None), await anext(index, None)


async def _indexed(session: AsyncSession) -> AsyncIterator[tuple[UUID, int]]:
    query = select(SearchDocument.file_id, SearchDocument.revision).order_by(SearchDocument.file_id)
    rows = await session.stream(query.execution_options(yield_per=_CHUNK))
    async for file_id, revision in rows:
        yield file_id, revision
