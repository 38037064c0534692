"""What one reading of an area of the platform found."""

from collections.abc import Iterator

from worker.metrics.catalogue import Metric

Rows = list[tuple[tuple[str, ...], list[float]]]


class Page:
    """Figures by metric, in the order in which they were put."""

    def __init__(self) -> None:
        self._rows: dict[Metric, Rows] = {}

    def put(self, metric: Metric, *values: str, to: float) -> None:
        """Note a figure with the values of the metric's labels."""
        self._rows.setdefault(metric, []).append((values, [float(to)]))

    def __iter__(self) -> Iterator[tuple[Metric, Rows]]:
        return iter(self._rows.items())
