"""How the queues were in the last hours, for the charts."""

import asyncio
import time
from pathlib import Path
from typing import Any

from samplemind.connections.resources import Connections
from samplemind.errors import SampleMindError
from samplemind.jobs.standing import broker_standing
from samplemind.jobs.wire import Queue
from worker.console.samples import PACE_S, SAVED_EVERY, Samples


class Depths:
    """The last samples of every queue's depth."""

    def __init__(self, path: Path) -> None:
        """Take up what an earlier console has left in the file."""
        self._samples = Samples(path, len(Queue))

    def add(self, at: float, waiting: list[int | None]) -> None:
        """Keep a sample: a number for each of `Queue`, none where it could not be read."""
        self._samples.add(at, waiting)

    def chart(self) -> dict[str, Any]:
        """Return the samples as a chart draws them."""
        return {
            "x": [at for at, _ in self._samples],
            "series": [
                {"label": queue.value, "values": [waiting[place] for _, waiting in self._samples]}
                for place, queue in enumerate(Queue)
            ],
            "unit": "waiting",
        }

    def save(self) -> None:
        """Write the samples beside the console's other state."""
        self._samples.save()

    async def watch(self, connections: Connections) -> None:
        """Sample for ever."""
        for count in range(1, 2**62):
            try:
                found = await broker_standing(connections.broker)
                self.add(time.time(), [each.messages for each in found.queues])
            except SampleMindError:
                self.add(time.time(), [None for _ in Queue])
            if count % SAVED_EVERY == 0:
                await asyncio.to_thread(self.save)
            await asyncio.sleep(PACE_S)
