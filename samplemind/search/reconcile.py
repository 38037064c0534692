"""Comparing MongoDB with the index and repairing what an event lost.

Both sides are read in id order, so memory does not grow with the library, and the index page by
page, so that no long transaction keeps a rebuild from switching. What differs is only
marked dirty: the drain repairs it by the one path that writes the index. The exception is a row
that is ahead of the library (MongoDB was restored from a backup, or a clock went back), which no
drain may overwrite: it is taken out first.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.cache.invalidation import note_files
from samplemind.connections.resources import Connections
from samplemind.errors import ConflictError
from samplemind.models.search_document import SearchDocument
from samplemind.repositories.audio_files import AudioFileRepository, FileVersion
from samplemind.search.dirty import mark_dirty
from samplemind.search.journal import join_writers, record_changes
from samplemind.search.merge import remove_files
from samplemind.search.rows import INDEX_VERSION

_CHUNK = 1000
_FEW_SURPLUS = 100
_FEW_SURPLUS_SHARE = 0.1
_PAGE = 5000


class RowVersion(NamedTuple):
    """What a row was made from, and by which version of the code."""

    file: FileVersion
    made_by: int


@dataclass(slots=True)
class Drift:
    """How the index differs from the library.

    Attributes:
        compared: files on either side.
        missing: files that the index does not have.
        stale: files of which the index has an older version.
        surplus: rows whose file is gone.
        ahead: rows of a newer version than the library's.
    """

    compared: int = 0
    missing: int = 0
    stale: int = 0
    surplus: int = 0
    ahead: int = 0

    @property
    def total(self) -> int:
        """How many rows are wrong."""
        return self.missing + self.stale + self.surplus + self.ahead


@dataclass(slots=True)
class _Wrong:
    """What was found since the last repair."""

    ids: list[UUID] = field(default_factory=list)
    ahead: dict[UUID, FileVersion] = field(default_factory=dict)


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
    wrong = _Wrong()
    surplus: list[UUID] = []
    async for file_id, row in differing(_library(), _indexed(connections), drift):
        if drift.surplus > len(surplus):
            surplus.append(file_id)
            continue
        wrong.ids.append(file_id)
        if row is not None:
            wrong.ahead[file_id] = row.file
        if repair and len(wrong.ids) >= _CHUNK:
            await _repair(connections, wrong)
            wrong = _Wrong()
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


async def differing(
    library: AsyncIterator[tuple[UUID, RowVersion]],
    index: AsyncIterator[tuple[UUID, RowVersion]],
    drift: Drift,
) -> AsyncIterator[tuple[UUID, RowVersion | None]]:
    """Yield each id whose two sides differ, counting them in `drift`; both come in id order.

    With it comes the row's version where that is ahead of the file's, else none.
    """
    file, row = await anext(library, None), await anext(index, None)
    while file is not None or row is not None:
        drift.compared += 1
        if file is not None and (row is None or file[0] < row[0]):
            drift.missing += 1
            yield file[0], None
            file = await anext(library, None)
        elif row is not None and (file is None or row[0] < file[0]):
            drift.surplus += 1
            yield row[0], None
            row = await anext(index, None)
        elif file is not None and row is not None:
            if row[1].file > file[1].file:
                drift.ahead += 1
                yield row
            elif row[1] < file[1]:
                drift.stale += 1
                yield file[0], None
            file, row = await anext(library, None), await anext(index, None)


async def _repair(connections: Connections, wrong: _Wrong) -> None:
    await _remove_ahead(connections, wrong.ahead)
    await mark_dirty(connections.broker, wrong.ids)


async def _remove_ahead(connections: Connections, rows: dict[UUID, FileVersion]) -> None:
    if not rows:
        return
    # Both sides were read while files changed: a row is ahead only if the file, read again after
    # the row was, is still behind it.
    library = await AudioFileRepository().find_versions(list(rows))
    ahead = [
        file_id for file_id, row in rows.items() if file_id in library and library[file_id] < row
    ]

    async def remove(session: AsyncSession) -> None:
        await join_writers(session)
        same = await _still_of(session, ahead, rows)
        await note_files(session, same)
        await remove_files(session, same)
        await record_changes(session, same)

    if ahead:
        await connections.postgres.run(remove, idempotent=True)


async def _still_of(
    session: AsyncSession, ids: Sequence[UUID], rows: dict[UUID, FileVersion]
) -> list[UUID]:
    query = select(SearchDocument.file_id, SearchDocument.created_at, SearchDocument.revision)
    locked = query.where(SearchDocument.file_id.in_(ids)).order_by(SearchDocument.file_id)
    found = await session.execute(locked.with_for_update())
    return [
        file_id
        for file_id, created_at, revision in found
        if rows[file_id] == FileVersion(created_at, revision)
    ]


async def _library() -> AsyncIterator[tuple[UUID, RowVersion]]:
    async for file_id, version in AudioFileRepository().stream_versions():
        yield file_id, RowVersion(version, INDEX_VERSION)


async def _indexed(connections: Connections) -> AsyncIterator[tuple[UUID, RowVersion]]:
    query = (
        select(
            SearchDocument.file_id,
            SearchDocument.created_at,
            SearchDocument.revision,
            SearchDocument.index_version,
        )
        .order_by(SearchDocument.file_id)
        .limit(_PAGE)
    )
    page = query
    while True:
        async with connections.postgres.session() as session:
            rows = (await session.execute(page)).all()
        for file_id, created_at, revision, index_version in rows:
            yield file_id, RowVersion(FileVersion(created_at, revision), index_version)
        if len(rows) < _PAGE:
            return
        page = query.where(SearchDocument.file_id > rows[-1].file_id)
