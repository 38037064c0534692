"""A batch of many items that do nothing, and a small batch behind a huge one."""

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.batches import noop
from benchmarks.batches.platform import Worker, stores
from benchmarks.row import Row, row
from samplemind.batches import BatchPlan, cancel, feed, plan, progress
from samplemind.connections.resources import Connections
from samplemind.documents.batch_job import BatchState
from samplemind.ids import new_id
from samplemind.jobs.publishing import producer, publish_chunks
from samplemind.settings import Settings

HUGE, SMALL = 20_000, 10
WAIT_GOAL_S = 5.0
SLOPE_GOAL_MIB = 5.0
_TIMEOUT_S = 900
_SAMPLE_S = 0.5


def batch_rows(*, items: int) -> list[Row]:
    """Return an item's cost, the slope of each process's memory, and the small batch's wait."""
    noop.install()
    with stores() as (home, settings):
        worker = Worker(home, "bench")
        try:
            return asyncio.run(_measure(settings, worker, items))
        finally:
            worker.kill()


async def _measure(settings: Settings, worker: Worker, items: int) -> list[Row]:
    async with Connections(settings) as connections:
        return [
            *await _flat(connections, worker, items),
            await _wait_behind_huge(connections),
        ]


async def _flat(connections: Connections, worker: Worker, items: int) -> list[Row]:
    # A first one, so that what is loaded once is loaded.
    first = await _submit(connections, "noop", min(items, 10_000))
    await _until(connections, first, lambda state: state is BatchState.FINISHED)
    began = time.perf_counter()
    submitted = await _submit(connections, "noop", items)
    written = time.perf_counter()
    samples: list[dict[str, float]] = []
    now = await progress(connections, submitted.batch_id)
    while now.state is not BatchState.FINISHED:
        samples.append(worker.memory_mib())
        await asyncio.sleep(_SAMPLE_S)
        now = await progress(connections, submitted.batch_id)
    samples.append(worker.memory_mib())
    assert now.done == items
    slopes = {
        name: _slope([sample[name] for sample in samples if name in sample]) for name in samples[0]
    }
    steepest = max(slopes, key=lambda name: slopes[name])
    return [
        row(f"batch of {items:,} no-ops: written and submitted", written - began, "s"),
        row(f"batch of {items:,} no-ops: overhead an item", now.seconds / items * 1e6, "µs"),
        *(
            row(
                f"batch of {items:,} no-ops: growth of the {name} process",
                slope,
                "MiB",
                goal=f"≤ {SLOPE_GOAL_MIB:g}" if name == steepest else None,
                met=slope <= SLOPE_GOAL_MIB if name == steepest else None,
            )
            for name, slope in slopes.items()
        ),
    ]


def _slope(values: list[float]) -> float:
    """Return how much the memory grows over the whole batch, by the line that fits best."""
    if len(values) < 2:
        return 0.0
    place = np.linspace(0, 1, len(values))
    return float(np.polyfit(place, values, 1)[0])


async def _wait_behind_huge(connections: Connections) -> Row:
    huge = await _submit(connections, "slow", HUGE)
    await asyncio.sleep(3)  # the queue and the workers are full by then
    submitted_at = time.perf_counter()
    small = await _submit(connections, "slow", SMALL)
    await _until(connections, small, lambda state: state is not BatchState.PENDING)
    wait_s = time.perf_counter() - submitted_at
    await cancel(connections, huge.batch_id)
    in_order_s = HUGE * noop.SLOW_S / 2
    return row(
        f"wait of {SMALL} files behind {HUGE:,} of another owner",
        wait_s,
        "s",
        peer=("one queue in order, computed", in_order_s),
        ratio=in_order_s / wait_s,
        goal=f"≤ {WAIT_GOAL_S:g}",
        met=wait_s <= WAIT_GOAL_S,
    )


async def _submit(connections: Connections, kind: str, items: int) -> BatchPlan:
    submitted = await plan(
        connections,
        _paths(items),
        owner_id=new_id(),
        kind=kind,
        chunk_size=500 if kind == "noop" else 32,
    )
    with producer(connections.settings) as app:
        await feed(connections, submitted.owner_id, partial(publish_chunks, app))
    return submitted


def _paths(items: int) -> Iterator[Path]:
    return (Path(f"/bench/{number:06}.wav") for number in range(items))


async def _until(
    connections: Connections, submitted: BatchPlan, reached: Callable[[BatchState], bool]
) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not reached((await progress(connections, submitted.batch_id)).state):
        assert time.monotonic() < deadline, "the batch did not go on"
        await asyncio.sleep(0.02)
