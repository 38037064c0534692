import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from samplemind.cache.computed import ComputedCache
from samplemind.settings import Settings
from tests.asynchronous import eventually

PROCESSES = 4
LEASE_S = 2


@contextmanager
def _process(
    settings: Settings, *, callers: int, compute_s: float
) -> Iterator["subprocess.Popen[str]"]:
    assert settings.cache.url is not None
    script = Path(__file__).with_name("stampede.py")
    arguments = [settings.cache.url.get_secret_value(), "k", str(callers), str(compute_s)]
    process = subprocess.Popen(
        [sys.executable, script, *arguments, str(LEASE_S)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def _go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def _found(process: "subprocess.Popen[str]") -> Counter[str]:
    out, _ = process.communicate(timeout=60)
    return Counter(json.loads(out))


async def _computations(cache: ComputedCache) -> int:
    return int(await cache.cache.redis.get("computed:k") or 0)


async def test_a_thousand_misses_in_four_processes_are_one_computation(
    cache: ComputedCache, stack: Settings
) -> None:
    each = 1000 // PROCESSES
    with ExitStack() as opened:
        processes = [
            opened.enter_context(_process(stack, callers=each, compute_s=0.5))
            for _ in range(PROCESSES)
        ]
        for process in processes:
            _go(process)
        found: Counter[Any] = sum((_found(process) for process in processes), Counter())
    assert found == {"1": 1000}
    assert await _computations(cache) == 1


async def test_waiters_take_over_from_a_killed_process_within_the_lease(
    cache: ComputedCache, stack: Settings
) -> None:
    with (
        _process(stack, callers=1, compute_s=60) as computing,
        _process(stack, callers=50, compute_s=0.1) as waiting,
    ):
        _go(computing)

        async def computes() -> bool:
            return await _computations(cache) == 1

        await eventually(computes, seconds=20, what="the first process computes")
        _go(waiting)
        computing.kill()
        killed = time.monotonic()
        assert _found(waiting) == {"2": 50}
        # Noise of the machine comes on top of the lease and the computation.
        assert time.monotonic() - killed < LEASE_S + 5
    assert await _computations(cache) == 2
