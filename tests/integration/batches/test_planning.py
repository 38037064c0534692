"""From paths to a stored batch."""

import asyncio
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from samplemind.batches import finish, plan, progress, stalled
from samplemind.documents import AudioFile, BatchItem, BatchJob, BatchState
from samplemind.documents.text import load_path
from samplemind.errors import InvalidInputError, StoreUnavailableError
from samplemind.ids import new_id
from samplemind.repositories.batch_items import BatchItemRepository


async def test_a_batch_is_cut_into_chunks_without_gap_or_overlap(bench: Any) -> None:
    batch = await bench.plan([Path(f"/music/{number}.wav") for number in range(20)])
    assert batch.chunks == [(0, 7), (8, 15), (16, 19)]
    items = await bench.items(batch.batch_id)
    assert [item.seq for item in items] == list(range(20))
    assert [load_path(item.path).name for item in items] == [f"{n}.wav" for n in range(20)]


async def test_a_batch_without_files_is_finished_at_once(bench: Any) -> None:
    batch = await bench.plan([])
    assert batch.chunks == []
    state = await progress(bench.connections, batch.batch_id)
    assert (state.state, state.total, state.eta) == (BatchState.FINISHED, 0, 0.0)
    assert not await finish(bench.connections, batch.batch_id)


async def test_a_repeated_plan_returns_the_stored_batch(bench: Any) -> None:
    batch_id, paths = new_id(), [Path("/music/a.wav"), Path("/music/b.wav")]
    plans = [
        await plan(bench.connections, paths, owner_id=None, batch_id=batch_id) for _ in range(2)
    ]
    assert plans[0] == plans[1]
    assert len(await bench.items(batch_id)) == 2


async def test_a_plan_that_was_cut_off_is_invisible_and_can_be_repeated(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id, paths = new_id(), [Path(f"/music/{number}.wav") for number in range(1500)]
    insert = BatchItemRepository.insert

    async def fail_at_the_second_slice(self: Any, items: Any) -> None:
        if items[0].seq > 0:
            message = "MongoDB did not answer"
            raise StoreUnavailableError(message)
        await insert(self, items)

    with monkeypatch.context() as patch:
        patch.setattr(BatchItemRepository, "insert", fail_at_the_second_slice)
        with pytest.raises(StoreUnavailableError):
            await plan(bench.connections, paths, owner_id=None, batch_id=batch_id)
    assert await BatchJob.find().to_list() == []
    assert await stalled(bench.connections) == []

    batch = await plan(bench.connections, paths, owner_id=None, batch_id=batch_id)
    assert batch.total == 1500
    assert await BatchItem.find(BatchItem.batch_id == batch_id).count() == 1500


async def test_more_files_than_allowed_are_refused_and_nothing_stays(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = bench.connections.settings
    few = settings.model_copy(update={"batch": settings.batch.model_copy(update={"max_files": 3})})
    monkeypatch.setattr(bench.connections, "settings", few)
    with pytest.raises(InvalidInputError, match="at most 3 files"):
        await bench.plan([Path(f"/music/{number}.wav") for number in range(4)])
    assert await BatchItem.count() == await BatchJob.count() == 0


async def test_memory_does_not_grow_with_the_number_of_files(bench: Any) -> None:
    async def peak_of(files: int) -> int:
        tracemalloc.start()
        paths: Iterator[Path] = (Path(f"/music/{number}.wav") for number in range(files))
        await plan(bench.connections, paths, owner_id=None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    await peak_of(1000)
    assert await peak_of(5000) < 1.5 * await peak_of(1000)


async def test_a_path_of_any_bytes_comes_back_as_it_was(bench: Any) -> None:
    """Names as old samplers and other systems' archives left them on a Linux disk."""
    names = [b"caf\xe9.wav", "Größe %E9 日本.wav".encode(), b"\xff\xfe new\nline.wav", b"file:.wav"]
    paths = [bench.folder / os.fsdecode(name) for name in names]
    for path in paths:
        path.write_text("analyzed")
    batch = await bench.plan(paths)

    await bench.analyze(batch.batch_id, 0, 3)

    assert await bench.states(batch.batch_id) == ["done"] * 4
    assert [path for path, _ in bench.looked_into] == paths
    assert {load_path(file.path) for file in await AudioFile.find().to_list()} == set(paths)


async def test_planning_leaves_the_loop_free_while_folders_are_read(bench: Any) -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow_disk() -> Iterator[Path]:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(10)
        yield Path("/music/a.wav")

    planning = asyncio.create_task(plan(bench.connections, slow_disk(), owner_id=None))
    await asyncio.sleep(0)
    release.set()
    assert (await planning).total == 1
