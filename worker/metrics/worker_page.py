"""What a worker serves: what its processes have counted, and what its main loop saw last.

Invariant: it is made from memory; a scrape that finds the main loop stuck is still answered, and
shows it.
"""

import time
from typing import TYPE_CHECKING

from worker.metrics import catalogue, counting, serving
from worker.metrics.catalogue import Metric

if TYPE_CHECKING:
    from worker.health import Vitals


def render_worker(vitals: "Vitals") -> bytes:
    """Return the worker's page of figures."""
    samples: dict[Metric, list[tuple[tuple[str, ...], list[float]]]] = {}
    cells = counting.cells()
    if cells is not None:
        for row, numbers in cells.totals():
            samples.setdefault(row.metric, []).append((row.values, numbers))
    stalled = vitals.stalled_since
    for metric, value in (
        (catalogue.WORKER_CONNECTED, float(vitals.connected)),
        (catalogue.WORKER_WAITING, vitals.waiting),
        (catalogue.WORKER_FREE, vitals.free),
        (catalogue.WORKER_STALLED, 0.0 if stalled is None else max(0.0, time.time() - stalled)),
        (catalogue.WORKER_LOOKED, vitals.looked_at),
    ):
        samples[metric] = [((), [value])]
    return serving.render(samples)
