"""How the cache did in the last hours, for the charts.

The cache counts since it was begun; a chart shows what came between two samples.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

from samplemind.cache.stats import CacheStats
from samplemind.connections.resources import Connections
from worker.console.samples import PACE_S, SAVED_EVERY, Samples

_FIGURES = 4
_OVER = 6
"""Samples over which a rate is told: a minute, as one of ten seconds jumps about."""


class Hits:
    """The last samples of hits, misses, evictions and memory."""

    def __init__(self, path: Path) -> None:
        """Take up what an earlier console has left in the file."""
        self._samples = Samples(path, _FIGURES)

    def add(self, at: float, found: CacheStats) -> None:
        """Keep a sample; nothing of a cache that did not answer."""
        figures: list[int | None] = [None] * _FIGURES
        if found.available:
            figures = [found.hits, found.misses, found.evictions, found.memory_bytes]
        self._samples.add(at, figures)

    def rates(self) -> dict[str, Any]:
        """Return the share of hits in percent over the minute before each sample."""
        samples = list(self._samples)
        values: list[float | None] = [None] * len(samples)
        for place in range(1, len(samples)):
            earlier, later = samples[max(0, place - _OVER)][1], samples[place][1]
            hits, misses = _risen(earlier[0], later[0]), _risen(earlier[1], later[1])
            if hits is not None and misses is not None and hits + misses:
                values[place] = round(100 * hits / (hits + misses), 1)
        return {
            "x": [at for at, _ in samples],
            "series": [{"label": "hits", "values": values}],
            "unit": "%",
        }

    def memory(self) -> dict[str, Any]:
        """Return the memory that the server took, in MiB."""
        return {
            "x": [at for at, _ in self._samples],
            "series": [
                {
                    "label": "memory",
                    "values": [
                        None if figures[3] is None else round(figures[3] / 2**20, 1)
                        for _, figures in self._samples
                    ],
                }
            ],
            "unit": "MiB",
        }

    def save(self) -> None:
        """Write the samples beside the console's other state."""
        self._samples.save()

    async def watch(self, connections: Connections) -> None:
        """Sample for ever."""
        for count in range(1, 2**62):
            self.add(time.time(), await connections.cached.cache.get_stats(with_keys=False))
            if count % SAVED_EVERY == 0:
                await asyncio.to_thread(self.save)
            await asyncio.sleep(PACE_S)


def _risen(earlier: int | None, later: int | None) -> int | None:
    # Counts that fell were begun anew: the cache was flushed.
    return None if earlier is None or later is None or later < earlier else later - earlier
