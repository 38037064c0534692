"""Who holds an item, under every interleaving of two workers."""

import asyncio
from typing import Any

from samplemind.batches import ItemOutcome, claim, extend, finish, record, release
from samplemind.batches.claims import Claim
from samplemind.documents import ItemState


def done(taken: Claim) -> list[ItemOutcome]:
    return [ItemOutcome(item, ItemState.DONE) for item in taken.items]


async def test_two_jobs_never_hold_the_same_item(bench: Any) -> None:
    batch = await bench.plan(bench.write(*["analyzed"] * 20), chunk_size=20)
    claims = await asyncio.gather(
        *(claim(bench.connections, batch.batch_id, 0, 19, job_id=str(job)) for job in range(5))
    )
    held = [item.seq for taken in claims for item in taken.items]
    assert sorted(held) == list(range(20))


async def test_a_redelivered_job_takes_its_own_items_back_at_once(bench: Any) -> None:
    batch = await bench.plan(bench.write(*["analyzed"] * 3))
    first = await claim(bench.connections, batch.batch_id, 0, 2, job_id="job")
    second = await claim(bench.connections, batch.batch_id, 0, 2, job_id="job")
    assert [item.claims for item in second.items] == [2, 2, 2]
    assert first.token != second.token


async def test_another_job_gets_nothing_before_the_claim_ends_and_all_after(bench: Any) -> None:
    batch = await bench.plan(bench.write(*["analyzed"] * 3))
    await claim(bench.connections, batch.batch_id, 0, 2, job_id="one")
    early = await claim(bench.connections, batch.batch_id, 0, 2, job_id="two")
    await bench.expire(batch.batch_id)
    late = await claim(bench.connections, batch.batch_id, 0, 2, job_id="two")
    assert (len(early.items), len(late.items)) == (0, 3)


async def test_a_worker_that_slept_past_its_claim_ends_nothing_when_it_wakes(bench: Any) -> None:
    batch = await bench.plan(bench.write(*["analyzed"] * 3))
    asleep = await claim(bench.connections, batch.batch_id, 0, 2, job_id="job")
    awake = await claim(bench.connections, batch.batch_id, 0, 2, job_id="job")

    assert (await record(bench.connections, asleep, done(asleep))).finished == 0
    assert await extend(bench.connections, asleep) == 0
    assert await release(bench.connections, asleep) == 0
    assert await bench.states(batch.batch_id) == ["claimed"] * 3
    assert (await record(bench.connections, awake, done(awake))).finished == 3
    assert (await record(bench.connections, awake, done(awake))).finished == 0


async def test_two_workers_that_store_the_same_items_at_once_count_them_once(bench: Any) -> None:
    batch = await bench.plan(bench.write(*["analyzed"] * 10))
    taken = await claim(bench.connections, batch.batch_id, 0, 9, job_id="job")
    counts = await asyncio.gather(
        *(record(bench.connections, taken, done(taken)) for _ in range(4))
    )
    assert sum(count.finished for count in counts) == len(taken.items)


async def test_two_workers_with_the_same_message_end_each_item_once(bench: Any) -> None:
    batch = await bench.plan(bench.write(*["analyzed"] * 40), chunk_size=40)
    await asyncio.gather(*(bench.analyze(batch.batch_id, 0, 39, "the same job") for _ in range(3)))
    assert await bench.states(batch.batch_id) == ["done"] * 40
    assert len(await bench.results()) == 40
    assert [file.revision for file in await bench.files()] == [1] * 40
    endings = await asyncio.gather(*(finish(bench.connections, batch.batch_id) for _ in range(3)))
    assert sorted(endings) == [False, False, True]


async def test_what_is_given_back_can_be_claimed_at_once(bench: Any) -> None:
    batch = await bench.plan(bench.write(*["analyzed"] * 4))
    taken = await claim(bench.connections, batch.batch_id, 0, 3, job_id="one")
    untouched = [item.id for item in taken.items[1:]]
    assert await release(bench.connections, taken, untouched=untouched) == 4
    again = await claim(bench.connections, batch.batch_id, 0, 3, job_id="two")
    assert [item.claims for item in again.items] == [2, 1, 1, 1]


async def test_a_late_finding_does_not_undo_a_later_look_at_the_file(bench: Any) -> None:
    """A is paused after its analysis; the file changes; B analyses it; A stores at last."""
    [path] = bench.write("analyzed")
    batch = await bench.plan([path])

    def meanwhile(_: object) -> None:
        bench.before_analysis = lambda _: None
        path.write_text("silent content")
        bench.analyze_now(batch.batch_id, 0, 0, "job")
        path.write_text("analyzed 0")

    bench.before_analysis = meanwhile
    await bench.analyze(batch.batch_id, 0, 0)

    [file] = await bench.files()
    assert (file.status, file.revision) == ("silent", 1)
    assert await bench.states(batch.batch_id) == ["done"]
