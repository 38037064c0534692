"""What a process counts of its cache, until it is added to what all processes have counted."""

import time
from collections import Counter, deque

HITS, MISSES, LOCAL_HITS = "hits", "misses", "local_hits"
BYPASSED, ERRORS, UNREADABLE = "redis_down", "errors", "unreadable"
COMPUTED, STALE_SERVED, REFRESHED, TAKEN_OVER = (
    "computed",
    "stale",
    "refreshed",
    "leases_taken_over",
)
RATE_LIMITED = "rate_limited"
EVENTS = (
    HITS,
    MISSES,
    LOCAL_HITS,
    BYPASSED,
    ERRORS,
    UNREADABLE,
    COMPUTED,
    STALE_SERVED,
    REFRESHED,
    TAKEN_OVER,
    RATE_LIMITED,
)
"""Everything that is counted."""

FLUSH_S = 5.0
_KEPT = 2048


class Counts:
    """Counters since the last flush, totals since the start, and the last latencies."""

    def __init__(self) -> None:
        self.total: Counter[str] = Counter()
        self._flushed: Counter[str] = Counter()
        self._flush_next = time.monotonic() + FLUSH_S
        self.latencies_s: deque[float] = deque(maxlen=_KEPT)

    def add(self, name: str, by: int = 1) -> None:
        """Count."""
        self.total[name] += by

    def due(self) -> dict[str, int] | None:
        """Return what was counted since the last time, where it is time to flush, else none."""
        now = time.monotonic()
        return self.take() if now >= self._flush_next else None

    def take(self) -> dict[str, int]:
        """Return what was counted since the last time."""
        self._flush_next = time.monotonic() + FLUSH_S
        new = dict(self.total - self._flushed)
        self._flushed = self.total.copy()
        return new

    def percentile_ms(self, share: float) -> float | None:
        """Return the latency in ms that this share of the last round trips did not exceed."""
        if not self.latencies_s:
            return None
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000
