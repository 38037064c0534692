"""What goes to the queue, and when: nobody waits for all that another has submitted."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from samplemind import limits
from samplemind.batches import (
    BatchPlan,
    ChunkReport,
    HandedOut,
    Work,
    claim,
    feed,
    feed_all,
    hand_out,
    pause,
    plan,
    progress,
    resume,
    work_chunk,
)
from samplemind.batches.kind import Kind, add_kind, find_kind, kind_names
from samplemind.batches.planning import PATIENCE
from samplemind.connections.resources import Connections
from samplemind.documents import BatchState
from samplemind.errors import InvalidInputError, StoreUnavailableError
from samplemind.ids import new_id
from samplemind.jobs.payloads import WorkBatch
from samplemind.limit import Limit
from samplemind.repositories.batch_items import BatchItemRepository

ADA, BOB = new_id(), new_id()


@dataclass
class Line:
    """The queue, as a list, and a worker that takes the first of it."""

    connections: Connections
    run: Callable[..., Any]
    queue: list[HandedOut] = field(default_factory=list)
    served: list[UUID] = field(default_factory=list)
    refused: int = 0

    def send(self, handed_out: Sequence[HandedOut]) -> None:
        self.queue += handed_out

    async def feed(self, owner_id: UUID | None) -> int:
        return await feed(self.connections, owner_id, self.send)

    async def serve(self) -> ChunkReport:
        """Take one message from the queue and work through its chunk."""
        taken = self.queue.pop(0)
        work = Work(
            self.connections,
            taken.chunk,
            new_id().hex,
            run=self.run,
            queue_drain=lambda: None,
        )
        report = await asyncio.to_thread(work_chunk, work, send=self.send, send_once=_tell_nobody)
        if report.stopped:
            self.refused += 1
        else:
            self.served.append(taken.chunk.batch_id)
        return report


def _tell_nobody(*_: object) -> None:
    raise AssertionError("no batch here has a callback")


@pytest.fixture
def line(bench: Any) -> Line:
    return Line(bench.connections, bench.run)


async def submit(
    bench: Any, items: int, owner_id: UUID | None, *, kind: str = "reindex", chunk_size: int = 2
) -> BatchPlan:
    paths = [Path(f"/music/{number}.wav") for number in range(items)]
    return await plan(bench.connections, paths, owner_id=owner_id, kind=kind, chunk_size=chunk_size)


async def test_a_small_batch_passes_a_huge_one_of_another_owner(bench: Any, line: Line) -> None:
    huge = await submit(bench, 200, ADA)
    await line.feed(ADA)
    await line.serve()
    small = await submit(bench, 2, BOB)
    await line.feed(BOB)

    while small.batch_id not in line.served:
        await line.serve()

    window = bench.connections.settings.batch.window
    assert line.served.count(huge.batch_id) <= 1 + window
    assert len(line.queue) <= window


async def test_a_small_batch_passes_a_huge_one_of_the_same_owner(bench: Any, line: Line) -> None:
    huge = await submit(bench, 200, ADA)
    await line.feed(ADA)
    small = await submit(bench, 2, ADA)
    await line.feed(ADA)

    while small.batch_id not in line.served:
        await line.serve()

    assert line.served.count(huge.batch_id) <= 1 + bench.connections.settings.batch.window


async def test_each_end_feeds_the_next_and_every_item_ends_once(bench: Any, line: Line) -> None:
    batches = [await submit(bench, items, owner) for items, owner in ((31, ADA), (7, BOB))]
    for owner in (ADA, BOB):
        await line.feed(owner)
    while line.queue:
        await line.serve()
    for batch in batches:
        now = await progress(bench.connections, batch.batch_id)
        assert (now.state, now.skipped) == (BatchState.FINISHED, batch.total)
    assert len(line.served) == 16 + 4


async def test_nothing_depends_on_who_feeds(bench: Any, line: Line) -> None:
    """Chunks end without feeding, as if each worker died right after it."""
    batch = await submit(bench, 8, ADA)
    for _ in range(10):
        await feed_all(bench.connections, line.send)
        if not line.queue:
            break
        chunk = line.queue.pop(0).chunk
        taken = await claim(
            bench.connections, chunk.batch_id, chunk.first, chunk.last, job_id=new_id().hex
        )
        ended = [item.id for item in taken.items]
        await bench_end(bench, taken.token, ended)
    assert (await progress(bench.connections, batch.batch_id)).ended == 8


async def bench_end(bench: Any, token: UUID, ids: list[UUID]) -> None:
    from datetime import UTC, datetime

    from samplemind.documents import ItemState
    from samplemind.repositories.batch_items import ItemEnd

    ends = [ItemEnd(item_id, ItemState.DONE, None, None, None) for item_id in ids]
    await BatchItemRepository().end(token, ends, datetime.now(UTC))


async def test_what_cannot_be_sent_waits_for_the_next_feed(bench: Any, line: Line) -> None:
    await submit(bench, 8, ADA)

    def refuse(_: Sequence[HandedOut]) -> None:
        message = "the broker did not take 2 jobs"
        raise StoreUnavailableError(message)

    with pytest.raises(StoreUnavailableError):
        await feed(bench.connections, ADA, refuse)

    assert await line.feed(ADA) == bench.connections.settings.batch.window
    assert [each.chunk.first for each in line.queue] == [0, 2]


async def test_what_was_noted_and_never_sent_is_found_by_the_rescue(bench: Any) -> None:
    batch = await submit(bench, 4, ADA, chunk_size=4)
    assert len(await hand_out(bench.connections, ADA)) == 1  # and its feeder dies here
    assert await hand_out(bench.connections, ADA) == []
    await bench.expire(batch.batch_id, after=2 * PATIENCE)
    assert await bench.rescue() == [(batch.batch_id, 0, 3)]


async def test_feeders_at_once_send_each_chunk_once(bench: Any, line: Line) -> None:
    await submit(bench, 64, ADA)
    await asyncio.gather(*(line.feed(ADA) for _ in range(8)))
    firsts = [each.chunk.first for each in line.queue]
    assert len(firsts) == len(set(firsts))


async def test_no_more_of_an_owner_run_at_once_than_allowed_and_the_rest_waits(
    bench: Any, line: Line
) -> None:
    bench.connections.settings = limited(bench, {"running": 1})
    batch = await submit(bench, 8, ADA)
    await line.feed(ADA)
    assert len(line.queue) == 1
    inside = limits.Place(limits.owner_key(ADA), "elsewhere", "token")
    await limits.enter(bench.connections.broker, inside, Limit(running=1), lease_s=60)

    assert (await line.serve()).stopped
    assert await line.feed(ADA) == 0  # nobody asks again while the place is taken
    items = await bench.items(batch.batch_id)
    assert {(item.state, item.claims, item.attempts) for item in items} == {("pending", 0, 0)}
    assert await bench.rescue() == []

    await limits.leave(bench.connections.broker, inside)
    await feed_all(bench.connections, line.send)
    while line.queue:
        await line.serve()
    assert (await progress(bench.connections, batch.batch_id)).state is BatchState.FINISHED
    assert line.refused == 1
    assert not await bench.connections.broker.keys("sm:limit:running:*")


async def test_no_more_of_an_owner_begin_in_a_minute_than_allowed(bench: Any, line: Line) -> None:
    bench.connections.settings = limited(bench, {"per_minute": 3})
    batch = await submit(bench, 20, ADA)
    free = await submit(bench, 20, BOB)
    for owner in (ADA, BOB):
        await line.feed(owner)
    while line.queue:
        await line.serve()

    assert line.served.count(batch.batch_id) == 3
    assert line.served.count(free.batch_id) == 10
    begun = await bench.connections.broker.zrange(f"sm:limit:begun:owner:{ADA}", 0, -1)
    await bench.connections.broker.zadd(  # a minute passes
        f"sm:limit:begun:owner:{ADA}", dict.fromkeys(begun, 1)
    )
    await feed_all(bench.connections, line.send)
    while line.queue:
        await line.serve()
    assert line.served.count(batch.batch_id) == 6


def limited(bench: Any, limit: dict[str, int]) -> Any:
    settings = bench.connections.settings
    own = settings.limits.model_copy(update={"owners": {str(ADA): limit}})
    return settings.model_copy(update={"limits": own})


async def test_a_message_of_a_paused_batch_puts_its_items_back(bench: Any, line: Line) -> None:
    batch = await submit(bench, 2, ADA)
    await line.feed(ADA)
    await pause(bench.connections, batch.batch_id)
    assert (await line.serve()).stopped

    await resume(bench.connections, batch.batch_id)
    assert await line.feed(ADA) == 1
    await line.serve()
    assert (await progress(bench.connections, batch.batch_id)).state is BatchState.FINISHED


async def test_a_new_kind_needs_one_module_and_no_change_elsewhere(bench: Any, line: Line) -> None:
    from samplemind.batches.bulk import work_in_bulk
    from samplemind.batches.outcomes import ItemOutcome
    from samplemind.documents import ItemState

    seen: list[str] = []

    async def look(_: Any, __: Any, items: Any) -> list[ItemOutcome]:
        if any("3" in item.path.name for item in items):
            message = "this one is bad"
            raise ValueError(message)
        seen.extend(item.path.name for item in items)
        return [ItemOutcome(item, ItemState.DONE) for item in items]

    add_kind(Kind("look", "looks", job=WorkBatch, work=lambda given: work_in_bulk(given, look)))
    batch = await submit(bench, 6, ADA, kind="look", chunk_size=6)
    await line.feed(ADA)
    await line.serve()

    now = await progress(bench.connections, batch.batch_id)
    assert (now.state, now.done, now.failed) == (BatchState.FINISHED, 5, 1)
    assert sorted(seen) == [f"{number}.wav" for number in (0, 1, 2, 4, 5)]


def test_the_kinds_are_the_modules_of_their_package() -> None:
    assert {"analyze", "delete", "reanalyze", "reindex"} <= set(kind_names())
    for name in kind_names():
        assert find_kind(name).name == name
    with pytest.raises(InvalidInputError, match="analyze, delete"):
        find_kind("os")
