"""Making the whole index anew while the present one serves, and switching in one transaction.

The library is read from MongoDB into the next generation's tables, which are indexed in bulk, in
a fraction of the time of row by row. Meanwhile drains and folds go on in the present tables and
note what they change; the rebuild catches up with that, stops them for a moment, copies what is
left, and switches.

Invariant: a rebuild that dies at any line leaves the present index as it is; the next rebuild, or
`discard_abandoned`, clears what it left. One runs at a time, by a lock that dies with its
connection; each of its transactions first checks that it is still the one that runs.
"""
# ruff: noqa: S608 - every name in the statements is a constant of this module

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.cache.invalidation import GENERATION, note_change
from samplemind.connections.resources import Connections
from samplemind.errors import (
    ConflictError,
    SampleMindError,
    StoreUnavailableError,
    TransientError,
)
from samplemind.ids import new_id
from samplemind.log import get_logger
from samplemind.repositories.audio_files import AudioFileRepository
from samplemind.search.generations import (
    analyze_next,
    build_index,
    copy_changed,
    create_next,
    drop_next,
    list_indexes,
    load_next,
    lock_tables,
    sort_texts,
    switch_tables,
)
from samplemind.search.indexer import load_files, read_usage
from samplemind.search.journal import stop_writers

_T = TypeVar("_T")

_CHUNK = 1000
# Fewer than this are copied while the writers wait.
_FEW_CHANGES = 500
_MOST_CHANGES = 20_000  # in one transaction, while writers go on
_MOST_ROUNDS = 1000
# Short waits come first: while the switch waits for a query to end, new queries wait behind it.
# The last is longer than deadlock_timeout, so that an autovacuum gives way, and shorter than the
# time limit of the queries that wait.
_LOCK_WAITS_MS = (200, 200, 500, 500, 500, 1200)
_SWITCH_PATIENCE_S = 900.0

# "rebuild" in ASCII: any number does that nobody else locks in this database.
_LOCK = text(f"SELECT pg_try_advisory_xact_lock({0x72656275696C64})")
# The transaction that holds it does nothing else for as long as the rebuild takes.
_MAY_BE_IDLE = text("SET LOCAL idle_in_transaction_session_timeout = 0")
_PATIENCE = text("SET LOCAL statement_timeout = 0")
_RUNNING = "finished_at IS NULL AND failed_at IS NULL"
_BEGIN = text("""
INSERT INTO search_rebuilds (id, phase, text_configuration)
VALUES (:id, :phase, :text_configuration)
""")
_STEP = text(
    "UPDATE search_rebuilds SET phase = :phase, files = files + :files "
    f"WHERE id = :id AND {_RUNNING} RETURNING files"
)
_FINISH = text("UPDATE search_rebuilds SET finished_at = statement_timestamp() WHERE id = :id")
_FAIL = text(
    "UPDATE search_rebuilds SET failed_at = statement_timestamp() "
    f"WHERE {_RUNNING} AND id = coalesce(:id, id) RETURNING id"
)
_TAKE_CHANGES = text("""
DELETE FROM search_changes
WHERE id IN (SELECT id FROM search_changes ORDER BY id LIMIT CAST(:limit AS bigint))
RETURNING file_id
""")
_FORGET_CHANGES = text("DELETE FROM search_changes")

_log = get_logger(__name__)


class RebuildPhase(StrEnum):
    """What a rebuild is at, in this order."""

    BEGIN = "begin"
    LOAD = "load"
    SORT = "sort"
    INDEX = "index"
    CATCH_UP = "catch_up"
    SWITCH = "switch"
    FINISHED = "finished"


Progress = Callable[[RebuildPhase, int], None]
"""Called at each phase and after each chunk with the number of files loaded so far."""


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild did: its id, files written, files that changed meanwhile, seconds."""

    id: UUID
    files: int
    caught_up: int
    seconds: float


async def rebuild_index(
    connections: Connections, *, progress: Progress = lambda _phase, _files: None
) -> RebuildReport:
    """Make the index anew from the library; searches and drains go on meanwhile.

    Raises:
        ConflictError: another rebuild runs, or has taken this one's place.
        TransientError: a store failed, or queries left no moment to switch; the present index
            stays, and a new rebuild starts over.
    """
    await connections.documents()
    async with _alone(connections):
        rebuild = _Rebuild(connections, progress)
        try:
            return await rebuild.run()
        except BaseException:
            await _abandon(connections, rebuild.id)
            raise


async def discard_abandoned(connections: Connections) -> bool:
    """Clear what a rebuild that died has left; return whether there was anything.

    Until then writers note their changes for nobody, and the next tables take room.
    """
    try:
        async with _alone(connections):
            return await connections.postgres.run(_discard, idempotent=True)
    except ConflictError:
        return False


class _Rebuild:
    """One rebuild: each step is a transaction that fails where the rebuild is no longer its own."""

    def __init__(self, connections: Connections, progress: Progress) -> None:
        self.id = new_id()
        self._connections = connections
        self._settings = connections.settings.search
        self._progress = progress
        self._files = 0
        self._caught_up = 0

    async def run(self) -> RebuildReport:
        started = time.monotonic()
        await self._begin()
        await self._load()
        await self._build()
        await self._catch_up()
        await self._switch_when_free()
        self._progress(RebuildPhase.FINISHED, self._files)
        seconds = round(time.monotonic() - started, 2)
        return RebuildReport(self.id, self._files, self._caught_up, seconds)

    async def _begin(self) -> None:
        async def begin(session: AsyncSession) -> None:
            # Who writes after this sees that a rebuild runs; who wrote before has committed, so
            # that the library is read later than any change that is not noted.
            await stop_writers(session)
            await _discard(session)
            values = {"id": self.id, "phase": RebuildPhase.BEGIN}
            configuration = {"text_configuration": self._settings.text_configuration}
            await session.execute(_BEGIN, values | configuration)
            await create_next(session)

        await self._connections.postgres.run(begin)
        self._progress(RebuildPhase.BEGIN, 0)

    async def _load(self) -> None:
        async for ids in _chunks(self._connections):
            async with self._connections.postgres.session() as session:
                usage = await read_usage(session, ids)
            files = await load_files(ids, usage, configuration=self._settings.text_configuration)
            async with self._step(RebuildPhase.LOAD, files=len(files)) as session:
                await load_next(session, files)
            self._files += len(files)
            self._progress(RebuildPhase.LOAD, self._files)

    async def _build(self) -> None:
        async with self._step(RebuildPhase.SORT) as session:
            await session.execute(_PATIENCE)
            await sort_texts(session)
            indexes = await list_indexes(session, self._settings)
        self._progress(RebuildPhase.SORT, self._files)
        for index in indexes:
            async with self._step(RebuildPhase.INDEX) as session:
                await build_index(session, index, self._settings)
            self._progress(RebuildPhase.INDEX, self._files)
        async with self._step(RebuildPhase.INDEX) as session:
            await session.execute(_PATIENCE)
            await analyze_next(session)

    async def _catch_up(self) -> None:
        for _ in range(_MOST_ROUNDS):
            async with self._step(RebuildPhase.CATCH_UP) as session:
                changed = await self._copy_changes(session, limit=_MOST_CHANGES)
            self._progress(RebuildPhase.CATCH_UP, self._files)
            if changed < _FEW_CHANGES:
                return

    async def _switch_when_free(self) -> None:
        deadline = time.monotonic() + _SWITCH_PATIENCE_S
        for attempt in itertools.count():
            wait_ms = _LOCK_WAITS_MS[min(attempt, len(_LOCK_WAITS_MS) - 1)]
            try:
                await self._switch(attempt, wait_ms)
            except StoreUnavailableError:
                raise
            except TransientError:
                # Queries held the tables, or one of them and this waited for each other.
                if time.monotonic() > deadline:
                    raise
                _log.info("search.switch_waits", attempt=attempt)
                await asyncio.sleep(random.uniform(0.2, 1.0))  # noqa: S311 - only spreads
                await self._catch_up()
            else:
                return

    async def _switch(self, attempt: int, wait_ms: int) -> None:
        async with self._step(RebuildPhase.SWITCH) as session:
            await stop_writers(session)
            await self._copy_changes(session, limit=None)
            indexes = await list_indexes(session, self._settings)
            self._progress(RebuildPhase.SWITCH, self._files)
            await lock_tables(session, first=attempt, wait_ms=wait_ms)
            await switch_tables(session, indexes)
            note_change(session, GENERATION)
            await session.execute(_FINISH, {"id": self.id})

    async def _copy_changes(self, session: AsyncSession, *, limit: int | None) -> int:
        await session.execute(_PATIENCE)
        changed = set(await session.scalars(_TAKE_CHANGES, {"limit": limit}))
        if changed:
            await copy_changed(session, changed)
        self._caught_up += len(changed)
        return len(changed)

    @asynccontextmanager
    async def _step(self, phase: RebuildPhase, *, files: int = 0) -> AsyncIterator[AsyncSession]:
        async with self._connections.postgres.session() as session:
            values = {"id": self.id, "phase": phase, "files": files}
            # The row stays locked until the step commits, so no other rebuild can begin in it.
            if (await session.execute(_STEP, values)).first() is None:
                message = "another rebuild of the index has taken this one's place"
                raise ConflictError(message)
            yield session


@asynccontextmanager
async def _alone(connections: Connections) -> AsyncIterator[None]:
    """Hold the rebuilds' lock for the block, in a transaction that does nothing else."""
    async with connections.postgres.session() as session:
        await session.execute(_MAY_BE_IDLE)
        if not await session.scalar(_LOCK):
            message = "another rebuild of the index is running: `samplemind index status` shows it"
            raise ConflictError(message)
        yield


async def _discard(session: AsyncSession) -> bool:
    abandoned = (await session.execute(_FAIL, {"id": None})).first() is not None
    await drop_next(session)
    await session.execute(_FORGET_CHANGES)
    return abandoned


async def _abandon(connections: Connections, rebuild_id: UUID) -> None:
    async def abandon(session: AsyncSession) -> None:
        # A switch whose commit was only not heard of has finished, and leaves nothing.
        if (await session.execute(_FAIL, {"id": rebuild_id})).first() is not None:
            await drop_next(session)
            await session.execute(_FORGET_CHANGES)

    try:
        await connections.postgres.run(abandon, idempotent=True)
    except SampleMindError as error:
        _log.warning("search.rebuild_not_cleared", error=str(error))


async def _chunks(connections: Connections) -> AsyncIterator[list[UUID]]:
    """Yield the ids of all searchable files, a chunk at a time."""
    chunk: list[UUID] = []
    async for file_id, _ in AudioFileRepository().stream_versions():
        chunk.append(file_id)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
