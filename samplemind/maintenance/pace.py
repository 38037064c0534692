"""How fast deletion goes: chunks short enough that nobody waits for them, and pauses between.

Invariant: the size of the next chunk follows from how long the last one took, so that a
transaction stays under `LONGEST_MS` on a slow disk as on a fast one.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_MS = 100.0
_AIM_MS = 20.0
_FIRST = 200
_LEAST, _MOST = 20, 20_000


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
        factor = min(1.5, max(0.25, _AIM_MS / max(self._last_ms, 0.1)))
        self.size = int(min(_MOST, max(_LEAST, self.size * factor)))

    async def rest(self) -> None:
        """Wait as long as the duty asks for after the last chunk."""
        await asyncio.sleep(self._last_ms / 1000 * (1 / self._duty - 1))
