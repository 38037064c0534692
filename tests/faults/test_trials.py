"""Batches of real audio, while the platform is shot at: nothing is lost and nothing done twice.

The default run covers each fault once. `SAMPLEMIND_FAULT_TRIALS=50` in the environment of pytest
adds as many trials of three faults each, drawn by their number, so that one that fails can be
repeated: `-k 'random and 17'`. The broker is away for some seconds; `SAMPLEMIND_FAULT_OUTAGE_S=60`
makes it a minute.
"""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from samplemind import batches
from samplemind.connections.resources import Connections
from samplemind.errors import StoreUnavailableError, TransientError
from samplemind.ids import new_id
from samplemind.jobs.client import Jobs
from samplemind.jobs.payloads import RefreshVocabulary
from tests.asynchronous import eventually
from tests.conftest import temporary_home
from tests.faults.arena import FAULTS, REFUSED, Arena, open_arena, write_samples
from tests.faults.soundness import assert_sound

pytestmark = pytest.mark.timeout(240)

TRIALS_VARIABLE = "SAMPLEMIND_FAULT_TRIALS"
# Read at collection: the fixtures take the platform's variables away.
TRIALS = int(os.environ.get(TRIALS_VARIABLE, "0"))
OUTAGE_S = float(os.environ.get("SAMPLEMIND_FAULT_OUTAGE_S", "5"))
SOUNDS = 120

EACH_ONCE = (
    ("child", "worker", "beat", "broker", "frozen worker"),
    ("mongo", "index worker", "postgres", "all workers"),
)


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    with temporary_home() as home, open_arena(home) as arena:
        yield arena


@pytest.fixture
async def connections(arena: Arena) -> AsyncIterator[Connections]:
    async with Connections(arena.settings) as opened:
        yield opened


def test_every_fault_has_its_place() -> None:
    assert sorted(FAULTS) == sorted(fault for faults in EACH_ONCE for fault in faults)


@pytest.mark.parametrize("number", range(len(EACH_ONCE)))
async def test_each_fault_once(
    arena: Arena, connections: Connections, tmp_path: Path, number: int
) -> None:
    await hold_trial(arena, connections, tmp_path, EACH_ONCE[number], seed=number)


@pytest.mark.parametrize("number", range(TRIALS))
async def test_random_faults(
    arena: Arena, connections: Connections, tmp_path: Path, number: int
) -> None:
    faults = random.Random(number).sample(sorted(FAULTS), 3)
    await hold_trial(arena, connections, tmp_path, faults, seed=1000 + number)


async def test_a_broker_outage_in_the_middle_of_a_batch(
    arena: Arena, connections: Connections, tmp_path: Path
) -> None:
    samples = [
        write_samples(tmp_path / name, SOUNDS // 2, seed) for seed, name in ((7, "a"), (8, "b"))
    ]
    workers = arena.worker_pids()
    async with Jobs(arena.settings) as jobs:
        first = await jobs.submit_batch([tmp_path / "a"])
        await reached(connections, first.batch_id, 10)
        with arena.broker_away():
            began, again = time.monotonic(), new_id()
            with pytest.raises(StoreUnavailableError):
                await jobs.submit_batch([tmp_path / "b"], batch_id=again)
            assert time.monotonic() - began < 15
            waiting = asyncio.create_task(
                jobs.submit_batch([tmp_path / "b"], batch_id=again, wait_s=OUTAGE_S + 60)
            )
            await asyncio.sleep(OUTAGE_S)  # the time is the fault
            assert not waiting.done()
        second = await waiting
    assert second.batch_id == again
    for submitted, paths in zip((first, second), samples, strict=True):
        refused = [path for path in paths if path.name in REFUSED]
        good = [path for path in paths if path.name not in REFUSED]
        await assert_sound(connections, submitted.batch_id, good=good, refused=refused)
    assert arena.worker_pids() == workers


async def hold_trial(
    arena: Arena,
    connections: Connections,
    folder: Path,
    faults: tuple[str, ...] | list[str],
    *,
    seed: int,
) -> None:
    """Submit a batch, strike as it proceeds, and look at what has become of it."""
    chance = random.Random(seed)
    paths = write_samples(folder / "samples", SOUNDS, seed)
    refused = [path for path in paths if path.name in REFUSED]
    good = [path for path in paths if path.name not in REFUSED]
    async with Jobs(arena.settings) as jobs:
        submitted = await jobs.submit_batch([folder / "samples"], callback=RefreshVocabulary())
    struck = sorted(chance.uniform(0.02, 0.8) * len(paths) for _ in faults)
    for fault, after in zip(faults, struck, strict=True):
        await reached(connections, submitted.batch_id, after)
        arena.strike(fault, chance)
    await assert_sound(connections, submitted.batch_id, good=good, refused=refused)


async def reached(connections: Connections, batch_id: UUID, items: float) -> None:
    async def has() -> bool:
        try:
            return (await batches.progress(connections, batch_id)).ended >= items
        except TransientError:
            return False  # the last fault was its store

    await eventually(has, seconds=90, what=f"{items:.0f} items have ended")
