import asyncio
from collections.abc import Sequence
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import text

from samplemind.connections.resources import Connections
from samplemind.documents.audio_file import AudioFile
from samplemind.search.fold import fold_vectors
from samplemind.search.indexer import index_files
from tests.library import add_file, change_vector, unit_vector

_PLACES = text("""
SELECT file_id, 'main' AS place, embedding::text FROM search_vectors
UNION ALL SELECT file_id, 'fresh', embedding::text FROM search_vectors_fresh
""")


async def places(connections: Connections) -> dict[UUID, list[str]]:
    found: dict[UUID, list[str]] = {}
    async with connections.postgres.session() as session:
        for file_id, place, _ in await session.execute(_PLACES):
            found.setdefault(file_id, []).append(place)
    return found


async def stored(connections: Connections, file: AudioFile) -> np.ndarray:
    async with connections.postgres.session() as session:
        rows = {row[0]: row[2] for row in await session.execute(_PLACES)}
    return np.array([float(number) for number in rows[file.id].strip("[]").split(",")])


async def indexed_files(connections: Connections, count: int) -> list[AudioFile]:
    await connections.documents()
    files = [await add_file(f"/f/{n}.wav", vector=unit_vector(n)) for n in range(count)]
    await index_files(connections, [file.id for file in files])
    return files


def all_in(place: str, files: Sequence[AudioFile]) -> dict[UUID, list[str]]:
    return {file.id: [place] for file in files}


async def test_a_new_vector_is_fresh_until_a_fold_moves_it(connections: Connections) -> None:
    files = await indexed_files(connections, 5)
    assert await places(connections) == all_in("fresh", files)

    report = await fold_vectors(connections, at_most=2)
    assert (report.folded, report.waiting) == (2, 3)
    assert (await fold_vectors(connections)).folded == 3
    assert await places(connections) == all_in("main", files)
    assert (await fold_vectors(connections)).folded == 0


async def test_a_changed_vector_becomes_fresh_and_an_unchanged_one_stays(
    connections: Connections,
) -> None:
    same, changed = await indexed_files(connections, 2)
    await fold_vectors(connections)
    await same.set({"revision": 2, "title": "another title"})
    await change_vector(changed, unit_vector(99))

    await index_files(connections, [same.id, changed.id])

    assert await places(connections) == {same.id: ["main"], changed.id: ["fresh"]}
    assert await stored(connections, changed) == pytest.approx(unit_vector(99), abs=1e-3)


async def test_a_file_that_is_silent_now_has_no_vector_anywhere(connections: Connections) -> None:
    folded, fresh = await indexed_files(connections, 2)
    await fold_vectors(connections, at_most=1)
    for file in (folded, fresh):
        await file.set({"revision": 2, "analysis_id": None})

    await index_files(connections, [folded.id, fresh.id])

    assert await places(connections) == {}


async def test_folds_and_drains_at_once_keep_each_vector_in_one_place(
    connections: Connections,
) -> None:
    files = await indexed_files(connections, 40)
    hurried = connections.settings.search.model_copy(update={"fold_batch": 3})
    connections.settings = connections.settings.model_copy(update={"search": hurried})
    doubles = asyncio.Event()

    async def watch() -> None:
        while not doubles.is_set():
            now = await places(connections)
            # A writer that changes a vector may be seen before or after, never in between.
            assert now == {file.id: now[file.id] for file in files}
            assert all(len(where) == 1 for where in now.values())

    watching = asyncio.create_task(watch())
    ids = [file.id for file in files]
    for seed in range(4):
        for file in files[seed::4]:
            await change_vector(file, unit_vector(1000 + seed))
        await asyncio.gather(
            index_files(connections, ids),
            index_files(connections, ids[::-1]),
            fold_vectors(connections),
            fold_vectors(connections),
        )
    doubles.set()
    await watching
    await fold_vectors(connections)

    assert await places(connections) == all_in("main", files)
    for number, file in enumerate(files):
        wanted = unit_vector(1000 + number % 4)
        assert await stored(connections, file) == pytest.approx(wanted, abs=1e-3)


async def test_a_fold_skips_what_a_writer_holds(connections: Connections) -> None:
    held, free = await indexed_files(connections, 2)
    async with connections.postgres.session() as session:
        await session.execute(
            text("SELECT FROM search_vectors_fresh WHERE file_id = :id FOR UPDATE"),
            {"id": held.id},
        )
        report = await asyncio.wait_for(fold_vectors(connections), timeout=10)
    assert (report.folded, report.waiting) == (1, 1)
    assert await places(connections) == {held.id: ["fresh"], free.id: ["main"]}


_END_FOLDS = text("""
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND state = 'active' AND query LIKE '%search_vectors_fresh%moved%'
""")


async def test_a_fold_that_is_killed_in_a_batch_loses_and_doubles_nothing(
    connections: Connections,
) -> None:
    files = await indexed_files(connections, 60)
    # One batch, and each insertion waits for the lock below, so that the kill comes in its middle.
    async with connections.postgres.session() as other:
        await other.execute(text("LOCK TABLE search_vectors IN SHARE MODE"))
        fold = asyncio.create_task(fold_vectors(connections, at_most=50))
        killed = 0
        while not killed:
            assert not fold.done()
            await asyncio.sleep(0.01)
            # Statistics are of the beginning of a transaction, unless they are asked for anew.
            await other.execute(text("SELECT pg_stat_clear_snapshot()"))
            killed = await other.scalar(_END_FOLDS) or 0
        assert await places(connections) == all_in("fresh", files)

    # The connection pool begins a transaction anew whose connection was lost.
    report = await fold
    assert (report.folded, report.waiting) == (50, 10)
    found = await places(connections)
    assert set(found) == {file.id for file in files}
    assert sorted(map(len, found.values())) == [1] * 60


async def test_a_fold_that_dies_between_batches_is_continued_by_the_next(
    connections: Connections,
) -> None:
    files = await indexed_files(connections, 6)
    by_two = connections.settings.search.model_copy(update={"fold_batch": 2})
    connections.settings = connections.settings.model_copy(update={"search": by_two})

    def die(folded: int) -> None:
        if folded == 4:
            message = "the worker died"
            raise SystemError(message)

    with pytest.raises(SystemError):
        await fold_vectors(connections, progress=die)
    found = await places(connections)
    assert sorted(found.values()) == [["fresh"]] * 2 + [["main"]] * 4
    assert (await fold_vectors(connections)).folded == 2
    assert await places(connections) == all_in("main", files)
