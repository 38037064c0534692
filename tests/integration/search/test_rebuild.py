import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text

from samplemind.connections.resources import Connections
from samplemind.documents.audio_file import AudioFile
from samplemind.endpoints import Store
from samplemind.errors import ConflictError
from samplemind.search.configuration import MEND, index_configuration, outdated_words
from samplemind.search.filters import Filters
from samplemind.search.fold import fold_vectors
from samplemind.search.full_text import FullTextSearch
from samplemind.search.hybrid import HybridSearch
from samplemind.search.indexer import index_files
from samplemind.search.languages import TextConfiguration
from samplemind.search.rebuild import RebuildPhase, discard_abandoned, rebuild_index
from samplemind.search.reconcile import reconcile
from samplemind.search.sound import Sound
from samplemind.search.vector import VectorSearch
from samplemind.settings import Settings
from tests.asynchronous import eventually
from tests.library import EMBEDDING_VERSION, add_file, change_vector, delete_file, unit_vector

KillRebuild = Callable[[RebuildPhase], Awaitable[None]]

_TABLES = (
    "search_documents",
    "search_texts",
    "search_vectors",
    "search_vectors_fresh",
    "search_blocks",
)
_HELD_LOCKS = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
_LEFTOVERS = text("SELECT count(*) FROM pg_class WHERE relname LIKE '%\\_next'")
_SCHEMA = text("""
SELECT t.relname, i.relname, pg_get_indexdef(i.oid), c.conname
FROM pg_index JOIN pg_class AS i ON i.oid = indexrelid JOIN pg_class AS t ON t.oid = indrelid
LEFT JOIN pg_constraint AS c ON c.conindid = i.oid
WHERE t.relname = ANY(:tables) ORDER BY 1, 2
""")
_COLUMNS = text("""
SELECT table_name, column_name, data_type, is_nullable, column_default, attstorage::text
FROM information_schema.columns JOIN pg_attribute
  ON attrelid = table_name::regclass AND attname = column_name
WHERE table_name = ANY(:tables) ORDER BY 1, ordinal_position
""")
_PLACES = text("""
SELECT file_id, count(*) FROM (
    SELECT file_id FROM search_vectors UNION ALL SELECT file_id FROM search_vectors_fresh) AS v
GROUP BY 1
""")
_ROWS = text("""
SELECT d.file_id, d.title, d.revision, t.words::text,
       (SELECT embedding::text FROM (
            SELECT file_id, embedding FROM search_vectors
            UNION ALL SELECT file_id, embedding FROM search_vectors_fresh) AS v
        WHERE v.file_id = d.file_id) AS vector
FROM search_documents AS d JOIN search_texts AS t USING (file_id) ORDER BY 1
""")


async def ask(
    connections: Connections, query: object, **values: object
) -> list[tuple[object, ...]]:
    async with connections.postgres.session() as session:
        return [tuple(row) for row in await session.execute(query, values)]  # type: ignore[call-overload]


async def titles(connections: Connections) -> dict[UUID, str]:
    return {row[0]: str(row[1]) for row in await ask(connections, _ROWS)}  # type: ignore[misc]


async def some_files(connections: Connections, count: int = 12) -> list[AudioFile]:
    await connections.documents()
    files = [
        await add_file(f"/r/{n}.wav", title=f"title {n}", vector=unit_vector(n))
        for n in range(count)
    ]
    await index_files(connections, [file.id for file in files])
    await fold_vectors(connections, at_most=count // 2)
    return files


async def test_a_rebuild_leaves_the_same_index_under_the_same_names(
    connections: Connections,
) -> None:
    await some_files(connections)
    names = {"tables": list(_TABLES)}
    schema = await ask(connections, _SCHEMA, **names)
    columns = await ask(connections, _COLUMNS, **names)
    rows = await ask(connections, _ROWS)

    for _ in range(2):
        report = await rebuild_index(connections)

        assert report.files == 12
        assert await ask(connections, _ROWS) == rows
        assert await ask(connections, _SCHEMA, **names) == schema
        assert await ask(connections, _COLUMNS, **names) == columns
        assert await ask(connections, _LEFTOVERS) == [(0,)]
    assert await ask(connections, text("SELECT count(*) FROM search_vectors")) == [(12,)]
    assert (await reconcile(connections, repair=False)).total == 0


async def test_a_rebuild_repairs_what_the_index_lacks_and_has_too_much(
    connections: Connections,
) -> None:
    gone, *_ = await some_files(connections, 4)
    await gone.delete()
    missing = await add_file("/r/missing.wav", title="missing")

    await rebuild_index(connections)

    now = await titles(connections)
    assert missing.id in now
    assert gone.id not in now


async def test_words_stand_in_descending_quality(connections: Connections) -> None:
    await connections.documents()
    plain = await add_file("/q/plain.wav")
    rich = await add_file(
        "/q/rich.wav", tags=["kick"], kind="one_shot", pack="Deep", artist="Ann", key="A minor"
    )
    await index_files(connections, [plain.id, rich.id])

    await rebuild_index(connections)

    heap = await ask(connections, text("SELECT file_id FROM search_texts ORDER BY ctid"))
    assert heap == [(rich.id,), (plain.id,)]


@pytest.mark.parametrize(
    "phase",
    [
        RebuildPhase.BEGIN,
        RebuildPhase.INDEX,
        RebuildPhase.CATCH_UP,
        RebuildPhase.SWITCH,
    ],
)
async def test_what_changes_in_any_phase_is_in_the_next_generation(
    connections: Connections, phase: RebuildPhase
) -> None:
    changed, gone, revived, moved, *_ = files = await some_files(connections)
    new = await add_file("/r/new.wav", title="new", vector=unit_vector(50))
    writing: list[asyncio.Task[None]] = []

    async def change() -> None:
        await changed.set({"revision": 2, "title": "changed"})
        await gone.delete()
        await delete_file(revived)
        again = await add_file("/r/2.wav", title="revived", vector=unit_vector(60))
        assert again.id == revived.id
        await change_vector(moved, unit_vector(70))
        await index_files(connections, [file.id for file in (*files, new)])
        await fold_vectors(connections)

    def progress(reached: RebuildPhase, _files: int) -> None:
        if reached == phase and not writing:
            writing.append(asyncio.create_task(change()))

    await rebuild_index(connections, progress=progress)
    await asyncio.gather(*writing)

    now = await titles(connections)
    assert now[changed.id] == "changed"
    assert gone.id not in now
    assert now[revived.id] == "revived"
    assert now[new.id] == "new"
    assert (await reconcile(connections, repair=False)).total == 0
    places = await ask(connections, _PLACES)
    assert dict(places) == dict.fromkeys(now, 1)  # type: ignore[arg-type]
    vector = {row[0]: str(row[4]) for row in await ask(connections, _ROWS)}[moved.id]
    assert float(vector[1:].split(",")[0]) == pytest.approx(unit_vector(70)[0], abs=1e-3)


@pytest.mark.parametrize("phase", list(RebuildPhase))
async def test_a_rebuild_killed_in_any_phase_leaves_a_whole_index(
    connections: Connections, kill_rebuild: KillRebuild, phase: RebuildPhase
) -> None:
    files = await some_files(connections)
    rows = await ask(connections, _ROWS)

    await kill_rebuild(phase)

    assert await ask(connections, _ROWS) == rows
    # Writers go on, and nothing that they do is lost by what comes after.
    await files[0].set({"revision": 2, "title": "after"})
    await index_files(connections, [files[0].id])
    finished = phase == RebuildPhase.FINISHED
    await eventually_free(connections)
    assert await discard_abandoned(connections) != finished
    assert await ask(connections, _LEFTOVERS) == [(0,)]
    assert await ask(connections, text("SELECT count(*) FROM search_changes")) == [(0,)]
    await rebuild_index(connections)
    assert (await titles(connections))[files[0].id] == "after"


async def test_a_killed_rebuild_is_cleared_by_the_next(
    connections: Connections, kill_rebuild: KillRebuild
) -> None:
    await some_files(connections)
    await kill_rebuild(RebuildPhase.INDEX)
    await eventually_free(connections)

    assert (await rebuild_index(connections)).files == 12

    ends = await ask(
        connections,
        text(
            "SELECT finished_at IS NOT NULL, failed_at IS NOT NULL FROM search_rebuilds "
            "ORDER BY started_at"
        ),
    )
    assert ends == [(False, True), (True, False)]


async def test_one_rebuild_runs_at_a_time(connections: Connections) -> None:
    await some_files(connections, 2)
    refused: list[asyncio.Task[object]] = []

    def progress(reached: RebuildPhase, _files: int) -> None:
        if reached == RebuildPhase.LOAD and not refused:
            refused.append(asyncio.create_task(rebuild_index(connections)))

    await rebuild_index(connections, progress=progress)
    with pytest.raises(ConflictError, match="running"):
        await refused[0]


async def test_a_rebuild_that_was_replaced_stops_before_it_does_harm(
    connections: Connections,
) -> None:
    await some_files(connections, 2)
    rows = await ask(connections, _ROWS)

    def progress(reached: RebuildPhase, _files: int) -> None:
        # As if its lock's connection was lost, and another one had begun and cleared it.
        if reached == RebuildPhase.SORT:
            asyncio.get_running_loop().create_task(replace())

    async def replace() -> None:
        async with connections.postgres.session() as session:
            await session.execute(text("UPDATE search_rebuilds SET failed_at = now()"))

    with pytest.raises(ConflictError, match="another rebuild"):
        await rebuild_index(connections, progress=progress)
    assert await ask(connections, _ROWS) == rows


async def test_searches_see_a_whole_index_while_generations_switch(
    connections: Connections,
) -> None:
    files = await some_files(connections)
    ended = asyncio.Event()
    seen = 0

    async def look() -> None:
        nonlocal seen
        while not ended.is_set():
            rows = await ask(connections, _ROWS)
            assert len(rows) == len(files)
            assert all(row[4] is not None for row in rows)
            seen += 1

    looking = [asyncio.create_task(look()) for _ in range(4)]
    for _ in range(2):
        await rebuild_index(connections)
    ended.set()
    await asyncio.gather(*looking)
    assert seen > 10


async def test_nothing_is_lost_when_writers_and_folds_run_beside_rebuilds(
    connections: Connections,
) -> None:
    files = await some_files(connections, 30)
    ended = asyncio.Event()
    chance = random.Random(7)
    written = 0

    async def write() -> None:
        nonlocal written
        while not ended.is_set():
            some = chance.sample(files, 4)
            for file in some[:2]:
                await file.set({"revision": file.revision + 1, "title": f"title {written}"})
            await change_vector(some[2], unit_vector(written))
            await delete_file(some[3])
            place = files.index(some[3])
            await index_files(connections, [file.id for file in some])
            files[place] = await add_file(f"/r/{place}.wav", vector=unit_vector(place))
            await index_files(connections, [files[place].id])
            written += 1

    async def fold() -> None:
        while not ended.is_set():
            await fold_vectors(connections)

    beside = [asyncio.create_task(write()), asyncio.create_task(fold())]
    for _ in range(3):
        await rebuild_index(connections)
    ended.set()
    await asyncio.gather(*beside)

    assert written > 3
    assert (await reconcile(connections, repair=False)).total == 0
    assert await titles(connections) == {file.id: file.title for file in files}
    places = await ask(connections, _PLACES)
    assert sorted(places) == sorted((file.id, 1) for file in files)


async def test_searches_find_what_stays_while_others_are_indexed_folded_and_rebuilt(
    connections: Connections,
) -> None:
    staying = await some_files(connections, 20)
    ids = {file.id for file in staying}
    sound = Sound(unit_vector(7), EMBEDDING_VERSION)
    everything = Filters(everything=True)
    ended = asyncio.Event()
    asked = written = 0

    async def search() -> None:
        nonlocal asked
        while not ended.is_set():
            async with connections.postgres.session() as session:
                words = await FullTextSearch().search_audio_files(
                    session, "title", filters=everything, limit=100
                )
                near = await VectorSearch().similarity_search(session, sound, filters=everything)
                both = await HybridSearch().hybrid_search(
                    session, "title", sound, filters=everything, limit=100
                )
            found = [hit.id for hit in words.results]
            assert ids <= set(found)
            assert len(set(found)) == len(found) == words.total
            assert near.results[0].id == staying[7].id
            assert ids <= {hit.id for hit in both.results}
            asked += 1

    async def write() -> None:
        nonlocal written
        while not ended.is_set():
            file = await add_file("/r/other.wav", title="title of another", vector=unit_vector(99))
            await index_files(connections, [file.id])
            await fold_vectors(connections)
            await delete_file(file)
            await index_files(connections, [file.id])
            written += 1

    beside = [asyncio.create_task(work()) for work in (search, search, write)]
    for _ in range(2):
        await rebuild_index(connections)
    ended.set()
    await asyncio.gather(*beside)
    assert asked > 5
    assert written > 1


async def test_a_long_query_delays_the_switch_and_is_not_hurt(connections: Connections) -> None:
    await some_files(connections, 2)
    async with connections.postgres.session() as session:
        await session.execute(_ROWS)  # holds the tables until the transaction ends
        rebuilding = asyncio.create_task(rebuild_index(connections))
        await asyncio.wait([rebuilding], timeout=2)
        assert not rebuilding.done()
        assert len((await session.execute(_ROWS)).all()) == 2
    assert (await asyncio.wait_for(rebuilding, timeout=20)).files == 2


@pytest.fixture(scope="module")
def kill_rebuild(migrated: Settings) -> Iterator[KillRebuild]:
    """Run a rebuild in a process of its own that is killed when it reaches the phase."""
    urls = {store: migrated.url(store) for store in Store}
    variables = {
        f"SAMPLEMIND_{store.value.upper()}_URL": url.get_secret_value()
        for store, url in urls.items()
        if url is not None
    }
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("killed_rebuild.py"))],
        env={**os.environ, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        async def kill(phase: RebuildPhase) -> None:
            process.stdin.write(f"{phase}\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            answer = await asyncio.to_thread(process.stdout.readline)  # type: ignore[union-attr]
            assert int(answer) == signal.SIGKILL

        yield kill
        process.stdin.close()


async def eventually_free(connections: Connections) -> None:
    """Wait until the server has noticed that the killed process is gone."""

    async def is_free() -> bool:
        return await ask(connections, _HELD_LOCKS) == [(0,)]

    await eventually(is_free, seconds=10, what="the killed rebuild's lock is free")


async def test_a_changed_text_configuration_is_told_until_a_rebuild(
    connections: Connections,
) -> None:
    async def indexed_in() -> str | None:
        async with connections.postgres.session() as session:
            return await index_configuration(session)

    await connections.documents()
    assert await indexed_in() is None
    file = await add_file("/a/trommeln.wav")
    await index_files(connections, [file.id])
    assert await indexed_in() == TextConfiguration.ENGLISH
    assert outdated_words(await indexed_in(), TextConfiguration.ENGLISH) is None
    warning = outdated_words(await indexed_in(), TextConfiguration.GERMAN)
    assert warning is not None
    assert MEND in warning

    german = connections.settings.search.model_copy(
        update={"text_configuration": TextConfiguration.GERMAN}
    )
    settings = connections.settings.model_copy(update={"search": german})
    async with Connections(settings) as changed:
        await rebuild_index(changed)
    assert await indexed_in() == TextConfiguration.GERMAN
