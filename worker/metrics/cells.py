"""Numbers in memory that the processes of one worker share, added up when somebody asks.

A lane is a row of cells that one process writes: lane 0 the main process, lane n the n-th process
of the pool. A process that replaces a dead one takes its lane over and goes on from what is there,
so that nothing is lost when a process is killed and nothing has to be collected.

Invariant: a cell has one writer, and whoever reads sees a number that stood there: cells are
aligned doubles, which are stored whole.
"""

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from worker.metrics.catalogue import Kind, Metric

_BYTES = 8

Values = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """Where one series of a metric lies in every lane: a single cell, or those of a histogram."""

    metric: Metric
    values: Values
    start: int

    @property
    def length(self) -> int:
        """How many cells it takes: a histogram has one for each bucket, one above, and its sum."""
        return len(self.metric.buckets) + 2 if self.metric.kind is Kind.HISTOGRAM else 1


class Cells:
    """Made by the main process before it forks; the children inherit it."""

    def __init__(
        self, domains: Iterable[tuple[Metric, tuple[tuple[str, ...], ...]]], *, lanes: int
    ) -> None:
        """Lay out one row for each combination of label values.

        Args:
            domains: each metric with the values that each of its labels may have.
            lanes: how many processes may write.
        """
        self.rows: dict[tuple[str, Values], Row] = {}
        width = 0
        for metric, sets in domains:
            for values in product(*sets):
                row = Row(metric, values, width)
                self.rows[metric.name, values] = row
                width += row.length
        self.lanes = lanes
        self._width = width
        self._memory = memoryview(mmap.mmap(-1, max(1, width * lanes) * _BYTES)).cast("d")

    def lane(self, number: int) -> "memoryview[float]":
        """Return the cells of a lane, to be written by one process."""
        return self._memory[number * self._width : (number + 1) * self._width]

    def totals(self) -> Iterator[tuple[Row, list[float]]]:
        """Yield each row with its cells added up over all lanes."""
        lanes = [self.lane(number).tolist() for number in range(self.lanes)]
        sums = [sum(column) for column in zip(*lanes, strict=True)]
        for row in self.rows.values():
            yield row, sums[row.start : row.start + row.length]
