"""The end of a batch, its cancellation, and the retry of what failed."""

import asyncio
from typing import Any

import pytest

from samplemind.batches import (
    cancel,
    claim,
    failed_items,
    finish,
    hand_out,
    pause,
    progress,
    record,
    resume,
    retry_failed,
)
from samplemind.batches.outcomes import ItemOutcome
from samplemind.documents import BatchJob, BatchState, ItemState
from samplemind.errors import ConflictError, NotFoundError
from samplemind.ids import new_id
from samplemind.repositories.batch_items import BatchItemRepository
from samplemind.repositories.batch_jobs import BatchJobRepository


async def test_a_batch_is_finished_by_one_caller_and_not_before_its_last_item(bench: Any) -> None:
    batch = await bench.plan(bench.write(*["analyzed"] * 10))
    await bench.analyze(batch.batch_id, 0, 7)
    assert not await finish(bench.connections, batch.batch_id)
    await bench.analyze(batch.batch_id, 8, 9)
    answers = await asyncio.gather(*(finish(bench.connections, batch.batch_id) for _ in range(8)))
    assert sorted(answers) == [False] * 7 + [True]


async def test_the_end_keeps_the_counts_and_stops_the_clock(bench: Any) -> None:
    batch = await bench.plan(bench.write("analyzed", "rejected:unreadable"))
    await bench.analyze(batch.batch_id, 0, 1)
    await finish(bench.connections, batch.batch_id)
    job = await BatchJobRepository().get(batch.batch_id)
    assert job.counts is not None
    assert (job.counts["done"], job.counts["failed"]) == (1, 1)
    first, second = [await progress(bench.connections, batch.batch_id) for _ in range(2)]
    assert first == second
    assert (first.state, first.eta) == (BatchState.FINISHED, 0.0)


async def test_an_unknown_batch_is_told_as_such(bench: Any) -> None:
    for call in (finish, cancel, progress, retry_failed):
        with pytest.raises(NotFoundError):
            await call(bench.connections, new_id())


async def test_a_cancellation_ends_every_open_item_at_once(bench: Any) -> None:
    batch = await bench.plan(bench.write(*["analyzed"] * 6))
    await bench.analyze(batch.batch_id, 0, 1, "first")
    taken = await claim(bench.connections, batch.batch_id, 2, 3, job_id="second")

    assert await cancel(bench.connections, batch.batch_id)

    assert not await cancel(bench.connections, batch.batch_id)
    late = [ItemOutcome(item, ItemState.DONE) for item in taken.items]
    assert (await record(bench.connections, taken, late)).finished == 0
    assert await bench.states(batch.batch_id) == ["done"] * 2 + ["cancelled"] * 4
    job = await BatchJobRepository().get(batch.batch_id)
    assert job.counts is not None
    assert (job.counts["done"], job.counts["cancelled"]) == (2, 4)


async def test_an_ended_batch_cannot_be_cancelled(bench: Any) -> None:
    batch = await bench.plan(bench.write("analyzed"))
    await bench.analyze(batch.batch_id, 0, 0)
    await finish(bench.connections, batch.batch_id)
    assert not await cancel(bench.connections, batch.batch_id)
    assert (await progress(bench.connections, batch.batch_id)).state is BatchState.FINISHED


async def test_a_retry_opens_the_failed_items_and_the_batch_again(bench: Any) -> None:
    words = ["analyzed"] * 10
    words[1] = words[9] = "rejected:unreadable"
    paths = bench.write(*words)
    batch = await bench.plan(paths, chunk_size=4)
    for first, last in batch.chunks:
        await bench.analyze(batch.batch_id, first, last)
    assert await finish(bench.connections, batch.batch_id)
    for place in (1, 9):
        paths[place].write_text("analyzed at last")

    assert await retry_failed(bench.connections, batch.batch_id) == 2

    assert (await progress(bench.connections, batch.batch_id)).state is BatchState.RUNNING
    chunks = [each.chunk for each in await hand_out(bench.connections, None)]
    assert [(chunk.first, chunk.last) for chunk in chunks] == [(0, 3), (8, 9)]
    for chunk in chunks:
        await bench.analyze(batch.batch_id, chunk.first, chunk.last)
    assert await finish(bench.connections, batch.batch_id)
    assert await failed_items(bench.connections, batch.batch_id) == []
    assert await bench.states(batch.batch_id) == ["done"] * 10


async def test_a_retry_without_failures_leaves_the_batch_finished(bench: Any) -> None:
    batch = await bench.plan(bench.write("analyzed"))
    await bench.analyze(batch.batch_id, 0, 0)
    await finish(bench.connections, batch.batch_id)
    assert await retry_failed(bench.connections, batch.batch_id) == 0
    assert (await progress(bench.connections, batch.batch_id)).state is BatchState.FINISHED


async def test_a_cancelled_batch_is_not_retried(bench: Any) -> None:
    batch = await bench.plan(bench.write("rejected:unreadable", "analyzed"), chunk_size=1)
    await bench.analyze(batch.batch_id, 0, 0)
    await cancel(bench.connections, batch.batch_id)
    with pytest.raises(ConflictError):
        await retry_failed(bench.connections, batch.batch_id)
    assert await bench.states(batch.batch_id) == ["failed", "cancelled"]


async def test_a_retry_between_counting_and_finishing_keeps_the_batch_open(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await bench.plan(bench.write("rejected:unreadable"))
    await bench.analyze(batch.batch_id, 0, 0)
    count = BatchItemRepository.count_by_state

    async def count_and_be_overtaken(self: Any, batch_id: Any) -> dict[str, int]:
        counts = await count(self, batch_id)
        await retry_failed(bench.connections, batch_id)
        return counts

    with monkeypatch.context() as patch:
        patch.setattr(BatchItemRepository, "count_by_state", count_and_be_overtaken)
        assert not await finish(bench.connections, batch.batch_id)
    state = await progress(bench.connections, batch.batch_id)
    assert (state.state, state.pending) == (BatchState.RUNNING, 1)


async def test_a_cancellation_during_a_retry_wins(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await bench.plan(bench.write("rejected:unreadable", "analyzed"), chunk_size=1)
    await bench.analyze(batch.batch_id, 0, 0)
    reset = BatchItemRepository.reset_failed

    async def be_overtaken_and_reset(self: Any, batch_id: Any, **kwargs: Any) -> int:
        await cancel(bench.connections, batch_id)
        return await reset(self, batch_id, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(BatchItemRepository, "reset_failed", be_overtaken_and_reset)
        with pytest.raises(ConflictError):
            await retry_failed(bench.connections, batch.batch_id)
    assert await bench.states(batch.batch_id) == ["cancelled", "cancelled"]
    job = await BatchJob.get(batch.batch_id)
    assert job is not None
    assert job.counts is not None
    assert job.counts["cancelled"] == 2


async def test_a_paused_batch_begins_nothing_and_goes_on_where_it_was(bench: Any) -> None:
    batch = await bench.plan(bench.write(*["analyzed"] * 4), chunk_size=2)
    await bench.analyze(batch.batch_id, 0, 1)

    assert await pause(bench.connections, batch.batch_id)
    assert not await pause(bench.connections, batch.batch_id)
    assert (await bench.analyze(batch.batch_id, 2, 3)).claimed == 0
    await bench.expire(batch.batch_id)
    assert await bench.rescue() == []
    assert await hand_out(bench.connections, None) == []
    paused = await progress(bench.connections, batch.batch_id)
    assert (paused.state, paused.pending, paused.eta) == (BatchState.PAUSED, 2, None)

    assert await resume(bench.connections, batch.batch_id)
    assert not await resume(bench.connections, batch.batch_id)
    (again,) = await hand_out(bench.connections, None)
    assert (again.chunk.first, again.chunk.last) == (2, 3)
    await bench.analyze(batch.batch_id, 2, 3)
    assert await finish(bench.connections, batch.batch_id)


async def test_a_chunk_that_was_begun_before_a_pause_ends_and_may_end_the_batch(
    bench: Any,
) -> None:
    batch = await bench.plan(bench.write("analyzed"))
    bench.before_analysis = lambda _: bench.run(pause(bench.connections, batch.batch_id))

    await bench.analyze(batch.batch_id, 0, 0)

    assert await bench.states(batch.batch_id) == ["done"]
    assert await finish(bench.connections, batch.batch_id)


async def test_a_pause_is_no_part_of_a_batchs_time(bench: Any) -> None:
    batch = await bench.plan(bench.write("analyzed", "analyzed"), chunk_size=1)
    await bench.analyze(batch.batch_id, 0, 0)
    await pause(bench.connections, batch.batch_id)
    jobs = BatchJob.get_pymongo_collection()
    for name in ("paused_at", "started_at"):
        earlier = [{"$set": {name: {"$subtract": [f"${name}", 3_600_000]}}}]
        await jobs.update_one({"_id": batch.batch_id}, earlier)

    assert (await progress(bench.connections, batch.batch_id)).seconds < 60
    await resume(bench.connections, batch.batch_id)
    assert (await progress(bench.connections, batch.batch_id)).seconds < 60


async def test_a_retry_of_a_paused_batch_leaves_it_paused(bench: Any) -> None:
    batch = await bench.plan(bench.write("rejected:unreadable", "analyzed"), chunk_size=1)
    await bench.analyze(batch.batch_id, 0, 0)
    await pause(bench.connections, batch.batch_id)

    assert await retry_failed(bench.connections, batch.batch_id) == 1

    state = await progress(bench.connections, batch.batch_id)
    assert (state.state, state.pending) == (BatchState.PAUSED, 2)


async def test_a_retry_that_dies_before_it_opens_the_batch_is_completed_by_the_rescue(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await bench.plan(bench.write("rejected:unreadable"))
    await bench.analyze(batch.batch_id, 0, 0)
    await finish(bench.connections, batch.batch_id)

    async def die(*_: Any) -> bool:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(BatchJobRepository, "reopen", die)
        with pytest.raises(asyncio.CancelledError):
            await retry_failed(bench.connections, batch.batch_id)
    await bench.expire(batch.batch_id)

    assert await bench.rescue() == [(batch.batch_id, 0, 0)]
    assert (await progress(bench.connections, batch.batch_id)).state is BatchState.RUNNING
