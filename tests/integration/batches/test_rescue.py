"""What is lost is found and handed out again."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from samplemind.batches import (
    HandedOut,
    cancel,
    claim,
    extend,
    finish,
    hand_out,
    progress,
    republish,
    retry_failed,
)
from samplemind.documents import BatchItem, BatchState
from samplemind.errors import StoreUnavailableError
from samplemind.ids import new_id
from samplemind.repositories.batch_items import BatchItemRepository
from samplemind.repositories.batch_jobs import BatchJobRepository


async def test_a_batch_that_is_worked_on_is_left_alone(bench: Any) -> None:
    batch = await bench.plan(bench.write(*["analyzed"] * 4), chunk_size=2)
    await claim(bench.connections, batch.batch_id, 0, 1, job_id="job")
    assert await bench.rescue() == []


async def test_chunks_whose_message_or_worker_was_lost_are_handed_out_again(bench: Any) -> None:
    batch = await bench.plan(bench.write(*["analyzed"] * 6), chunk_size=2)
    await bench.analyze(batch.batch_id, 0, 1, "done")
    lost = await claim(bench.connections, batch.batch_id, 2, 3, job_id="lost worker")
    assert len(lost.items) == 2
    await bench.expire(batch.batch_id)

    rescuers = await asyncio.gather(*(bench.rescue() for _ in range(3)))

    assert {chunk for chunks in rescuers for chunk in chunks} == {
        (batch.batch_id, 2, 3),
        (batch.batch_id, 4, 5),
    }
    assert await bench.rescue() == []
    retaken = await claim(bench.connections, batch.batch_id, 2, 3, job_id="rescue")
    assert len(retaken.items) == 2


async def test_an_old_batch_is_handed_out_ever_more_rarely(bench: Any) -> None:
    batch = await bench.plan([Path("/music/a.wav")])
    made = datetime.now(UTC)
    handed_out = []
    for minutes in range(1, 120):
        await bench.expire(batch.batch_id, after=timedelta(minutes=1))
        if await bench.rescue(made + timedelta(minutes=minutes)):
            handed_out.append(minutes)
    assert handed_out[0] in (5, 6)
    gaps = [later - earlier for earlier, later in pairwise(handed_out)]
    assert gaps == sorted(gaps)
    assert batch.total == 1
    assert len(handed_out) <= 6


async def test_a_cancellation_that_was_cut_off_is_completed(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await bench.plan([Path("/music/a.wav")])
    assert await BatchJobRepository().cancel(batch.batch_id, datetime.now(UTC))
    await bench.expire(batch.batch_id)
    assert await bench.rescue() == []
    state = await progress(bench.connections, batch.batch_id)
    assert (state.state, state.cancelled) == (BatchState.CANCELLED, 1)


async def test_a_batch_whose_last_worker_died_before_ending_it_is_ended(bench: Any) -> None:
    batch = await bench.plan(bench.write("analyzed", "analyzed"), chunk_size=1)
    running = await bench.plan([Path("/music/a.wav")])
    await bench.analyze(batch.batch_id, 0, 0)
    await bench.analyze(batch.batch_id, 1, 1)

    assert await bench.rescue() == []

    assert (await progress(bench.connections, batch.batch_id)).state is BatchState.FINISHED
    assert (await progress(bench.connections, running.batch_id)).state is BatchState.PENDING


async def test_a_retry_that_was_cut_off_is_completed(bench: Any) -> None:
    batch = await bench.plan(bench.write("rejected:unreadable"))
    await bench.analyze(batch.batch_id, 0, 0)
    await finish(bench.connections, batch.batch_id)
    await BatchItemRepository().reset_failed(batch.batch_id, patience_s=0)
    await bench.expire(batch.batch_id)

    assert await bench.rescue() == [(batch.batch_id, 0, 0)]
    assert (await progress(bench.connections, batch.batch_id)).state is BatchState.RUNNING


async def test_items_of_a_plan_that_is_being_written_are_kept(bench: Any) -> None:
    batch_id = new_id()
    item = BatchItem(batch_id=batch_id, seq=0, path="/music/a.wav", due_at=datetime.now(UTC))
    await item.insert()
    later = datetime.now(UTC) + timedelta(hours=1)
    assert await bench.rescue(later) == []
    assert await BatchItem.count() == 1


async def test_items_of_a_plan_that_was_never_completed_are_forgotten(bench: Any) -> None:
    item = BatchItem(batch_id=new_id(), seq=0, path="/music/a.wav", due_at=datetime.now(UTC))
    await item.insert()
    later = datetime.now(UTC) + timedelta(days=2)
    assert await bench.rescue(later) == []
    assert await BatchItem.count() == 0


async def test_the_rescue_of_a_cancelled_batch_hands_out_nothing(bench: Any) -> None:
    batch = await bench.plan(bench.write("analyzed"))
    await bench.expire(batch.batch_id)
    await cancel(bench.connections, batch.batch_id)
    assert await bench.rescue() == []


async def test_a_retried_batch_is_watched_again(bench: Any) -> None:
    batch = await bench.plan(bench.write("rejected:unreadable"))
    await bench.analyze(batch.batch_id, 0, 0)
    await retry_failed(bench.connections, batch.batch_id)
    assert len(await hand_out(bench.connections, None)) == 1
    await bench.expire(batch.batch_id)
    assert await bench.rescue() == [(batch.batch_id, 0, 0)]


async def test_a_rescuer_whose_clock_is_ahead_takes_nothing_from_a_worker(bench: Any) -> None:
    batch = await bench.plan(bench.write("analyzed", "analyzed"), chunk_size=1)
    await claim(bench.connections, batch.batch_id, 0, 0, job_id="job")

    assert await bench.rescue(datetime.now(UTC) + timedelta(hours=12)) == []

    assert await bench.states(batch.batch_id) == ["claimed", "pending"]


async def test_a_claim_that_is_extended_behind_a_rescuer_is_not_taken(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await bench.plan(bench.write("analyzed"))
    taken = await claim(bench.connections, batch.batch_id, 0, 0, job_id="job")
    await bench.expire(batch.batch_id)
    list_due = BatchItemRepository.list_due

    async def be_slow(self: BatchItemRepository, *, limit: int) -> list[BatchItem]:
        found = await list_due(self, limit=limit)
        assert await extend(bench.connections, taken) == 1
        return found

    monkeypatch.setattr(BatchItemRepository, "list_due", be_slow)
    assert await bench.rescue() == []
    assert await bench.states(batch.batch_id) == ["claimed"]


async def test_what_could_not_be_published_is_handed_out_by_the_next_rescue(bench: Any) -> None:
    batch = await bench.plan(bench.write(*["analyzed"] * 4), chunk_size=1)
    await bench.expire(batch.batch_id)
    published: list[tuple[int, int]] = []

    def publish(lost: HandedOut) -> None:
        if published:
            # The message of the third was only late, and its job begins before the rescue ends.
            bench.run(claim(bench.connections, lost.chunk.batch_id, 2, 2, job_id="late"))
            message = "the broker did not take 1 jobs"
            raise StoreUnavailableError(message)
        published.append((lost.chunk.first, lost.chunk.last))

    with pytest.raises(StoreUnavailableError):
        await asyncio.to_thread(republish, bench.connections, run=bench.run, publish=publish)

    assert published == [(0, 0)]
    again = await bench.rescue()
    assert sorted(again) == [(batch.batch_id, 1, 1), (batch.batch_id, 3, 3)]
