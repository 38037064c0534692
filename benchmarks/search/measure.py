"""Timing asynchronous calls: percentiles of one client, throughput of four."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CLIENTS = 4


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds for each call, of shape (n,)."""

    milliseconds: tuple[float, ...]

    @property
    def p50(self) -> float:
        return self._percentile(50)

    @property
    def p95(self) -> float:
        return self._percentile(95)

    @property
    def p99(self) -> float:
        return self._percentile(99)

    def _percentile(self, percent: float) -> float:
        return float(np.percentile(self.milliseconds, percent))


async def time_each(
    ask: Callable[[Any], Awaitable[Any]], questions: Sequence[Any], *, warm_up: int = 10
) -> Timings:
    """Ask one after the other, after some that don't count."""
    for question in questions[:warm_up]:
        await ask(question)
    milliseconds = []
    for question in questions:
        started = time.perf_counter()
        await ask(question)
        milliseconds.append((time.perf_counter() - started) * 1000)
    return Timings(tuple(milliseconds))


async def throughput(
    ask: Callable[[Any], Awaitable[Any]], questions: Sequence[Any], *, seconds: float
) -> float:
    """Return the questions answered a second while `CLIENTS` ask as fast as they get answers."""
    deadline = time.perf_counter() + seconds
    answered = 0

    async def client(number: int) -> None:
        nonlocal answered
        place = number * len(questions) // CLIENTS
        while time.perf_counter() < deadline:
            await ask(questions[place % len(questions)])
            place += 1
            answered += 1

    started = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return answered / (time.perf_counter() - started)


def time_peer(ask: Callable[[Any], Any], questions: Sequence[Any]) -> Timings:
    """Time a peer that answers in this process, after one round that doesn't count."""
    for question in questions[:10]:
        ask(question)
    milliseconds = []
    for question in questions:
        started = time.perf_counter()
        ask(question)
        milliseconds.append((time.perf_counter() - started) * 1000)
    return Timings(tuple(milliseconds))
