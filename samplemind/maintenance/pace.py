"""How fast deletion goes: chunks short enough that nobody waits for them, and pauses between.

Invariant: the size of the next chunk follows from how long the last one took, so that a
transaction stays under `LONGEST_MS` on a slow disk as on a fast one. It aims far below that: what
a chunk costs differs from one to the next.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

LONGEST_MS = 100.0
_AIM_MS = 15.0
_FIRST = 200
_LEAST, _MOST = 20, 20_000
_GROWTH = 1.25
"""At most, so that no single quick chunk makes the next one long."""


def next_size(size: int, took_ms: float) -> int:
    """Return how many rows the chunk after one of `size` rows has, by how long that took; pure."""
    factor = min(_GROWTH, _AIM_MS / max(took_ms, 0.1))
    return int(min(_MOST, max(_LEAST, size * factor)))


def pause_s(took_s: float, duty: float) -> float:
    """Return how long to wait after work, so that it has the share `duty` of the time; pure."""
    return took_s * (1 / duty - 1)


class Pace:
    """Sizes of chunks, pauses, and the end of the window."""

    def __init__(self, *, duty: float, seconds: float) -> None:
        """Work for the share `duty` of the time, for that many seconds in all."""
        self.size = _FIRST
        self.longest_ms = 0.0
        self._duty = duty
        self._ends = time.monotonic() + seconds
        self._last_ms = 0.0

    @property
    def is_over(self) -> bool:
        """Whether nothing more should be begun."""
        return time.monotonic() >= self._ends

    @contextmanager
    def chunk(self) -> Iterator[None]:
        """Time one transaction, and choose the size of the next."""
        started = time.perf_counter()
        yield
        self._last_ms = (time.perf_counter() - started) * 1000
        self.longest_ms = max(self.longest_ms, self._last_ms)
        self.size = next_size(self.size, self._last_ms)

    async def rest(self) -> None:
        """Wait as long as the duty asks for after the last chunk."""
        await asyncio.sleep(pause_s(self._last_ms / 1000, self._duty))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Rest after the block as the duty asks for: work beside the chunks, such as archiving."""
        started = time.perf_counter()
        yield
        await asyncio.sleep(pause_s(time.perf_counter() - started, self._duty))
