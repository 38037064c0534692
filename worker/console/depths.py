"""How the queues were in the last hours, for the charts.

Invariant: what is kept is bounded, and lies in the home too, so that a restart leaves a gap and no
more. A moment at which Redis did not answer has no value, which a chart shows as a gap.
"""

import asyncio
import json
import time
from collections import deque
from pathlib import Path
from typing import Any

from samplemind.connections.resources import Connections
from samplemind.errors import SampleMindError
from samplemind.jobs.standing import broker_standing
from samplemind.jobs.wire import Queue
from samplemind.log import get_logger

PACE_S = 10.0

_KEPT = 1080
"""Three hours at that pace."""
_SAVED_EVERY = 6

_log = get_logger(__name__)


class Depths:
    """The last samples of every queue's depth."""

    def __init__(self, path: Path) -> None:
        """Take up what an earlier console has left in the file."""
        self._path = path
        self._samples: deque[tuple[int, list[int | None]]] = deque(_load(path), maxlen=_KEPT)

    def add(self, at: float, waiting: list[int | None]) -> None:
        """Keep a sample: a number for each of `Queue`, none where it could not be read."""
        self._samples.append((int(at), waiting))

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
        draft = self._path.with_suffix(".new")
        try:
            draft.write_text(json.dumps(list(self._samples)))
            draft.replace(self._path)
        except OSError as error:
            _log.warning("console_depths_not_saved", error=str(error))

    async def watch(self, connections: Connections) -> None:
        """Sample for ever."""
        for count in range(1, 2**62):
            try:
                found = await broker_standing(connections.broker)
                self.add(time.time(), [each.messages for each in found.queues])
            except SampleMindError:
                self.add(time.time(), [None for _ in Queue])
            if count % _SAVED_EVERY == 0:
                await asyncio.to_thread(self.save)
            await asyncio.sleep(PACE_S)


def _load(path: Path) -> list[tuple[int, list[int | None]]]:
    try:
        found = json.loads(path.read_text())
        oldest = time.time() - _KEPT * PACE_S
        return [
            (at, waiting) for at, waiting in found if at > oldest and len(waiting) == len(Queue)
        ]
    except (OSError, ValueError, TypeError):
        return []  # none was kept, or a crash cut it short: the chart begins anew
