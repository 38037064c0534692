"""The circuit breaker before the cache's Redis.

Invariant: while it is open nobody waits for Redis. A probe of its own, which no caller waits for,
finds out when Redis is back; it starts only when somebody asked, so an idle process is idle.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

from samplemind.ending import end_tasks
from samplemind.log import get_logger

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0

_log = get_logger(__name__)


class CircuitBreaker:
    """Closed while Redis answers; one failure that a retry did not mend opens it."""

    def __init__(self, probe: Callable[[], Awaitable[object]]) -> None:
        """Start closed.

        Args:
            probe: asks Redis for a sign of life; raises where there is none.
        """
        self._probe = probe
        self._pause_s = _FIRST_PAUSE_S
        self._asked_next = 0.0
        self._probing: asyncio.Task[None] | None = None
        self.is_open = False

    def allows(self) -> bool:
        """Whether to ask Redis now; where not, see to it that a probe does."""
        if not self.is_open:
            return True
        if self._probing is None and time.monotonic() >= self._asked_next:
            self._probing = asyncio.create_task(self._ask())
        return False

    def trip(self, error: BaseException) -> None:
        """Open it, because Redis failed."""
        if not self.is_open:
            self.is_open = True
            self._asked_next = time.monotonic() + self._pause_s
            _log.warning("cache.unavailable", error=type(error).__name__)

    async def aclose(self) -> None:
        """End a probe that is still asking."""
        if self._probing is not None:
            await end_tasks(self._probing)

    async def _ask(self) -> None:
        try:
            await self._probe()
        except (RedisError, OSError, TimeoutError):
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            self._asked_next = time.monotonic() + self._pause_s
        else:
            self._pause_s = _FIRST_PAUSE_S
            self.is_open = False
            _log.info("cache.available_again")
        finally:
            self._probing = None
