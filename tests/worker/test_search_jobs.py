"""The jobs that keep the search index: each may run twice, and each does what its name says."""

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from samplemind.connections.resources import Connections
from samplemind.documents.audio_file import AudioFile
from samplemind.endpoints import Store
from samplemind.jobs.payloads import (
    PAYLOADS,
    AnalyzeTables,
    DeleteFiles,
    FoldVectors,
    IndexFiles,
    OptimizeSearch,
    Payload,
    RebuildIndex,
    RefreshVocabulary,
    ReindexOwner,
    VacuumTables,
)
from samplemind.jobs.state import DELAYED, DELAYED_MESSAGES
from samplemind.jobs.wire import Queue, queue_for
from samplemind.search import bulk
from samplemind.search.optimizer import SEARCH_TABLES
from samplemind.search.recall import LADDER
from samplemind.settings import Settings, get_settings
from schedules.beat import BEAT_SCHEDULE
from tests.library import add_file, delete_file, unit_vector
from worker import runtime
from worker.app import TASK_MODULES, app

Work = Callable[[Connections], Awaitable[Any]]


@pytest.fixture
def jobs(migrated: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Payload], Any]]:
    """Run a job in this process, over the stores of the tests."""
    for store in Store:
        url = migrated.url(store)
        assert url is not None
        monkeypatch.setenv(f"SAMPLEMIND_{store.value.upper()}_URL", url.get_secret_value())
    get_settings.cache_clear()
    for module in TASK_MODULES:
        importlib.import_module(module)
    yield lambda payload: app.tasks[payload.job_name](**payload.model_dump(mode="json"))
    runtime.close()
    get_settings.cache_clear()


def in_library(settings: Settings, work: Work) -> Any:
    async def call() -> Any:
        async with Connections(settings) as connections:
            await connections.documents()
            return await work(connections)

    return asyncio.run(call())


def count(settings: Settings, table: str) -> int:
    async def ask(connections: Connections) -> int:
        async with connections.postgres.session() as session:
            return int(await session.scalar(text(f"SELECT count(*) FROM {table}")) or 0)  # noqa: S608

    return int(in_library(settings, ask))


def add_files(settings: Settings) -> list[UUID]:
    async def add(connections: Connections) -> list[UUID]:
        async with connections.postgres.session() as session:
            for table in ("search_documents", "search_vectors", "search_vectors_fresh"):
                await session.execute(text(f"TRUNCATE {table}"))
        for name in await (await connections.documents()).list_collection_names():
            await (await connections.documents())[name].delete_many({})
        files = [await add_file(f"/j/kick {n}.wav", vector=unit_vector(n)) for n in range(3)]
        return [file.id for file in files]

    found: list[UUID] = in_library(settings, add)
    return found


@pytest.mark.usefixtures("jobs")
def test_every_payload_has_a_job_and_every_entry_of_beat_a_payload() -> None:
    names = {payload.job_name for payload in PAYLOADS}
    assert names <= app.tasks.keys()
    assert BEAT_SCHEDULE.keys() <= names


def test_a_bulk_is_analyzed_once_and_a_few_files_are_not(
    migrated: Settings, jobs: Callable[[Payload], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = add_files(migrated)

    async def delayed(connections: Connections) -> list[str]:
        messages = await connections.broker.hvals(DELAYED_MESSAGES)
        return [message for message in map(str, messages) if AnalyzeTables.job_name in message]

    in_library(migrated, lambda connections: connections.broker.delete(bulk.WRITTEN_KEY))
    monkeypatch.setattr(bulk, "BULK", 2)
    jobs(IndexFiles(ids=(ids[0],)))
    assert in_library(migrated, delayed) == []
    jobs(IndexFiles(ids=tuple(ids)))  # two more: a bulk
    assert len(in_library(migrated, delayed)) == 1
    assert jobs(ReindexOwner())["written"] == 0
    jobs(DeleteFiles(ids=tuple(ids)))  # they are in the library: nothing is written
    assert count(migrated, "search_documents") == 3
    for file_id in ids:

        async def delete(_: Connections, file_id: UUID = file_id) -> None:
            file = await AudioFile.get(file_id)
            assert file is not None
            await delete_file(file)

        in_library(migrated, delete)
    jobs(DeleteFiles(ids=tuple(ids)))  # a second bulk, while the first one's analysis waits
    assert len(in_library(migrated, delayed)) == 1
    assert jobs(AnalyzeTables(tables=SEARCH_TABLES))["skipped"] == {}


def test_the_first_words_are_counted_soon_and_once(
    migrated: Settings, jobs: Callable[[Payload], Any]
) -> None:
    ids = add_files(migrated)

    async def delayed(connections: Connections) -> int:
        messages = await connections.broker.hvals(DELAYED_MESSAGES)
        return sum(RefreshVocabulary.job_name in str(message) for message in messages)

    in_library(migrated, lambda connections: connections.broker.flushdb())
    jobs(IndexFiles(ids=(ids[0],)))
    jobs(IndexFiles(ids=(ids[1],)))
    assert in_library(migrated, delayed) == 1
    assert jobs(RefreshVocabulary())["words"] == 1
    in_library(migrated, lambda connections: connections.broker.delete(DELAYED_MESSAGES, DELAYED))
    jobs(IndexFiles(ids=(ids[2],)))
    assert in_library(migrated, delayed) == 0


def test_a_table_that_an_operator_names_is_vacuumed_though_nothing_is_due(
    jobs: Callable[[Payload], Any],
) -> None:
    done = jobs(VacuumTables(tables=("search_texts",)))
    assert done == {"done": ["VACUUM (ANALYZE) search_texts"], "skipped": {}, "left": []}


def test_what_takes_minutes_waits_where_it_delays_no_drain() -> None:
    for payload in (RebuildIndex, RefreshVocabulary, OptimizeSearch):
        assert queue_for(payload.job_name) is Queue.MAINTENANCE
    for urgent in (IndexFiles, DeleteFiles, ReindexOwner, FoldVectors):
        assert queue_for(urgent.job_name) is Queue.INDEX


def test_the_jobs_of_the_index_do_their_work_and_again_nothing(
    migrated: Settings, jobs: Callable[[Payload], Any]
) -> None:
    ids = add_files(migrated)

    assert jobs(IndexFiles(ids=tuple(ids))) == {"seen": 3, "written": 3, "removed": 0}
    assert jobs(IndexFiles(ids=tuple(ids)))["written"] == 0
    assert jobs(FoldVectors()) == {"folded": 3, "waiting": 0}
    assert jobs(FoldVectors())["folded"] == 0
    assert jobs(RefreshVocabulary())["words"] == 1
    assert jobs(ReindexOwner())["seen"] == 3
    assert jobs(RebuildIndex())["files"] == 3
    assert jobs(RebuildIndex())["files"] == 3
    optimized = jobs(OptimizeSearch())
    assert optimized["discarded_rebuild"] is False
    assert optimized["ef_search"] in LADDER
    assert optimized["done"] == [f"VACUUM (ANALYZE) {table}" for table in SEARCH_TABLES]
    assert count(migrated, "search_vectors") == 3

    async def delete(_: Connections) -> None:
        file = await AudioFile.get(ids[0])
        assert file is not None
        await delete_file(file)

    in_library(migrated, delete)
    assert jobs(DeleteFiles(ids=(ids[0], ids[1])))["removed"] == 1
    assert jobs(DeleteFiles(ids=(ids[0],)))["removed"] == 0
    assert count(migrated, "search_documents") == 2
    assert count(migrated, "search_vectors") == 2
