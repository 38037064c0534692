"""Figures of the last hours, for the charts of rooms.

Invariant: what is kept is bounded, and lies in the home too, so that a restart leaves a gap and no
more. A moment at which a figure could not be read has no value, which a chart shows as a gap.
"""

import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from samplemind.log import get_logger

PACE_S = 10.0
KEPT = 1080
"""Three hours at that pace."""
SAVED_EVERY = 6

Sample = tuple[int, list[int | None]]

_log = get_logger(__name__)


class Samples:
    """The last samples of some figures."""

    def __init__(self, path: Path, width: int) -> None:
        """Take up what an earlier console has left in the file, with so many figures a sample."""
        self._path = path
        self._samples: deque[Sample] = deque(_load(path, width), maxlen=KEPT)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples)

    def add(self, at: float, figures: Sequence[int | None]) -> None:
        """Keep a sample: none where a figure could not be read."""
        self._samples.append((int(at), list(figures)))

    def save(self) -> None:
        """Write the samples beside the console's other state."""
        draft = self._path.with_suffix(".new")
        try:
            draft.write_text(json.dumps(list(self._samples)))
            draft.replace(self._path)
        except OSError as error:
            _log.warning("console_samples_not_saved", path=self._path.name, error=str(error))


def _load(path: Path, width: int) -> list[Sample]:
    try:
        found = json.loads(path.read_text())
        oldest = time.time() - KEPT * PACE_S
        return [(at, figures) for at, figures in found if at > oldest and len(figures) == width]
    except (OSError, ValueError, TypeError):
        return []  # none was kept, or a crash cut it short: the chart begins anew
