"""Writing the index: from dirty ids to committed rows.

A drain claims ids, reads their documents, merges their rows and only then forgets the ids. Every
step may run twice. A file whose version the index has already is not even read; a file that is
gone from MongoDB, or whose new content was refused, goes from the index.

Invariant: once nobody marks or drains any more, the index holds what the library holds. A file
that appears or vanishes while it is indexed is looked at again after the commit: whoever changes
it later marks it later, and that mark is drained after this commit.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.cache.invalidation import note_files, settle_debts
from samplemind.connections.resources import Connections
from samplemind.ending import end_tasks, is_ending
from samplemind.errors import TransientError
from samplemind.models.search_document import SearchDocument
from samplemind.models.search_usage import SearchUsage
from samplemind.repositories.analyses import AnalysisRepository
from samplemind.repositories.audio_files import AudioFileRepository, FileVersion
from samplemind.search.dirty import (
    DirtyClaim,
    claim_dirty,
    extend_dirty,
    forget_dirty,
    mark_dirty,
)
from samplemind.search.journal import join_writers, record_changes
from samplemind.search.languages import TextConfiguration
from samplemind.search.merge import merge_files, remove_files
from samplemind.search.quality import static_quality
from samplemind.search.rows import INDEX_VERSION, IndexedFile, index_file, is_searchable

CHUNK = 1000
# What a killed drain held is indexed by another one after this; a living drain extends it.
_LEASE = timedelta(seconds=15)
_EXTENSIONS_PER_LEASE = 3
Progress = Callable[[int, int], None]

# A file that comes and goes more often than this within a second is left to its next mark.
_MOST_LOOKS = 3


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What one call did: ids looked at, files written, files removed."""

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
    await settle_debts(connections.cached, connections.broker)
    report = IndexReport()
    while report.seen < at_most:
        claim = await claim_dirty(connections.broker, limit=CHUNK, lease=_LEASE)
        if not claim.ids:
            break
        async with _keeping(connections, claim):
            report += await index_files(connections, claim.ids)
        await forget_dirty(connections.broker, claim)
    return report


@asynccontextmanager
async def _keeping(connections: Connections, claim: DirtyClaim) -> AsyncIterator[None]:
    """Extend a claim as long as the block lasts; give it back if that fails."""

    async def extend() -> None:
        while not is_ending():
            await asyncio.sleep(_LEASE.total_seconds() / _EXTENSIONS_PER_LEASE)
            # One that fails is made up for by the next, or the ids are indexed twice.
            with suppress(TransientError):
                await extend_dirty(connections.broker, claim, lease=_LEASE)

    extending = asyncio.create_task(extend())
    try:
        yield
    except TransientError:
        with suppress(TransientError):
            await extend_dirty(connections.broker, claim, lease=timedelta(0))
        raise
    finally:
        await end_tasks(extending)


async def index_files(
    connections: Connections,
    ids: Sequence[UUID],
    *,
    again: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> IndexReport:
    """Bring the files up to date in the index; more than a chunk go in several transactions.

    A file that is gone from the library, or refused, goes from the index.

    Args:
        connections: to the stores.
        ids: of the files; those that are given twice are done once.
        again: make the rows of files anew that the index has in their version already; what
            comes out the same is still not written.
        progress: called after each chunk with how many files are done, and how many there are.

    Raises:
        StoreUnavailableError: a store did not answer; running it again does no harm.
    """
    await connections.documents()
    report = IndexReport()
    wanted = list(dict.fromkeys(ids))
    for start in range(0, len(wanted), CHUNK):
        report += await _index_chunk(connections, wanted[start : start + CHUNK], again=again)
        progress(report.seen, len(wanted))
    return report


async def delete_files(
    connections: Connections,
    ids: Sequence[UUID],
    *,
    progress: Progress = lambda _done, _total: None,
) -> IndexReport:
    """Take files out of the index that are no longer in the library.

    Call it after the deletion. A file that is in the library, because it was made again before a
    late message came, is brought up to date instead.
    """
    return await index_files(connections, ids, progress=progress)


async def reindex_owner(
    connections: Connections,
    owner_id: UUID | None,
    *,
    progress: Progress = lambda _done, _total: None,
) -> IndexReport:
    """Make the rows of all files of one owner anew; none: the library's own files.

    Raises:
        StoreUnavailableError: a store did not answer; running it again does no harm.
    """
    await connections.documents()
    ids = await AudioFileRepository().list_ids(owner_id)
    query = select(SearchDocument.file_id).where(
        SearchDocument.owner_id.is_not_distinct_from(owner_id)
    )
    async with connections.postgres.session() as session:
        ids += await session.scalars(query)
    return await index_files(connections, ids, again=True, progress=progress)


async def _index_chunk(
    connections: Connections, ids: Sequence[UUID], *, again: bool
) -> IndexReport:
    report = IndexReport(seen=len(ids))
    pending = list(ids)
    library = await AudioFileRepository().find_versions(pending)
    for _ in range(_MOST_LOOKS):
        report += await _bring_up_to_date(connections, pending, library, again=again)
        present = await AudioFileRepository().find_versions(pending)
        pending = [file_id for file_id in pending if (file_id in library) != (file_id in present)]
        if not pending:
            return report
        library = present
    await mark_dirty(connections.broker, pending)
    return report


async def _bring_up_to_date(
    connections: Connections,
    ids: Sequence[UUID],
    library: dict[UUID, FileVersion],
    *,
    again: bool,
) -> IndexReport:
    async with connections.postgres.session() as session:
        stale = list(library) if again else await _stale(session, library)
        usage = await read_usage(session, stale)
    files = await load_files(
        stale, usage, configuration=connections.settings.search.text_configuration
    )
    gone = [file_id for file_id in ids if file_id not in library]

    async def write(session: AsyncSession) -> IndexReport:
        await join_writers(session)
        changing = [*gone, *(file.row.file_id for file in files)]
        await note_files(session, changing)
        removed = await remove_files(session, gone)
        written = await merge_files(session, files)
        await note_files(session, written)
        await record_changes(session, [*gone, *written])
        return IndexReport(written=len(written), removed=removed)

    if not files and not gone:
        return IndexReport()
    return await connections.postgres.run(write, idempotent=True)


async def load_files(
    ids: Iterable[UUID],
    usage: dict[UUID, tuple[int, int]],
    *,
    configuration: TextConfiguration,
) -> list[IndexedFile]:
    """Return the rows of those of the files that are there and searchable.

    Args:
        ids: of the files.
        usage: plays and downloads by file; a file that is not in it has none.
        configuration: of words whose file names no language.
    """
    found = await AudioFileRepository().find_many(list(ids))
    files = [file for file in found if is_searchable(file)]
    wanted = [file.analysis_id for file in files if file.analysis_id is not None]
    sounds = await AnalysisRepository().find_sounds(wanted)
    now = datetime.now(UTC)
    rows = []
    for file in files:
        plays, downloads = usage.get(file.id, (0, 0))
        rows.append(
            index_file(
                file,
                sounds.get(file.analysis_id) if file.analysis_id else None,
                quality=static_quality(file, plays=plays, downloads=downloads, now=now),
                configuration=configuration,
            )
        )
    return rows


async def read_usage(session: AsyncSession, ids: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
    """Return plays and downloads of those of the files that have any."""
    if not ids:
        return {}
    query = select(SearchUsage.file_id, SearchUsage.plays, SearchUsage.downloads)
    rows = await session.execute(query.where(SearchUsage.file_id.in_(ids)))
    return {file_id: (plays, downloads) for file_id, plays, downloads in rows}


async def _stale(session: AsyncSession, library: dict[UUID, FileVersion]) -> list[UUID]:
    """Return the files that the index does not have in their version."""
    if not library:
        return []
    query = select(
        SearchDocument.file_id,
        SearchDocument.created_at,
        SearchDocument.revision,
        SearchDocument.index_version,
    )
    rows = await session.execute(query.where(SearchDocument.file_id.in_(library)))
    indexed = {
        file_id: (FileVersion(created_at, revision), index_version)
        for file_id, created_at, revision, index_version in rows
    }
    return [
        file_id
        for file_id, version in library.items()
        if indexed.get(file_id) != (version, INDEX_VERSION)
    ]
