"""What a worker's processes count, from the start of the worker to its end.

Invariant: counting never fails, never waits, and costs a job some microseconds. Where no worker
runs (a test that calls a job, a console) nothing is counted. A cell is written by one thread: what
jobs do by the main thread of their process, what the data layer tallies by its event loop.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from billiard.process import current_process
from celery import signals

from samplemind import tally
from samplemind.connections.postgres import PoolCounts
from samplemind.documents.batch_item import ItemState
from samplemind.jobs.wire import queue_for
from samplemind.log import get_logger
from worker.metrics import catalogue
from worker.metrics.catalogue import Metric
from worker.metrics.cells import Cells, Row, Values

if TYPE_CHECKING:
    from celery.apps.worker import Worker

OTHER = "other"
"""A job of another role's queue, which came here all the same."""
_SPARE_LANES = 32
"""Processes that an operator may add while the worker runs."""

_log = get_logger(__name__)


class Outcome(StrEnum):
    """How one run of a job ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # for good: it is a dead letter
    RETRIED = "retried"  # it will be tried again
    RETURNED = "returned"  # its message went back, the next attempt could not be sent
    CANCELLED = "cancelled"
    REFUSED = "refused"  # it did not run: it had ended before, or its slot was taken
    REJECTED = "rejected"
    EXPIRED = "expired"  # it came too late to start
    TIMED_OUT = "timed_out"  # its process was killed because its time was over
    PROCESS_LOST = "process_lost"  # its process died with it


@dataclass(slots=True)
class Lane:
    """The cells that this process writes."""

    number: int
    cells: Cells
    memory: "memoryview[float]"
    pool: PoolCounts | None = None

    def add(self, metric: Metric, *values: str, by: float = 1) -> None:
        """Add to a counter."""
        row = self._row(metric, values)
        if row is not None:
            self.memory[row.start] += by

    def set(self, metric: Metric, *values: str, to: float) -> None:
        """Set this process's share of a gauge."""
        row = self._row(metric, values)
        if row is not None:
            self.memory[row.start] = to

    def observe(self, metric: Metric, value: str, seconds: float) -> None:
        """Add an observation to a histogram of one label."""
        row = self._row(metric, (value,))
        if row is not None:
            self.memory[row.start + bisect_left(metric.buckets, seconds)] += 1
            self.memory[row.start + row.length - 1] += seconds

    def _row(self, metric: Metric, values: Values) -> Row | None:
        rows = self.cells.rows
        return rows.get((metric.name, values)) or rows.get((metric.name, (OTHER, *values[1:])))


_lane: Lane | None = None


def lane() -> Lane | None:
    """Return what this process writes; none where nothing is counted."""
    return _lane


def cells() -> Cells | None:
    """Return the cells of this worker; none where nothing is counted."""
    return None if _lane is None else _lane.cells


def lay_out(tasks: Iterable[str], queues: Iterable[str], *, processes: int) -> Cells:
    """Return cells for a worker that takes these queues and knows these jobs."""
    taken = sorted(queues)
    names = (*sorted(name for name in tasks if queue_for(name) in taken), OTHER)
    outcomes = tuple(outcome.value for outcome in Outcome)
    ended = tuple(state.value for state in ItemState if state not in ("pending", "claimed"))
    domains: dict[Metric, tuple[tuple[str, ...], ...]] = {
        catalogue.JOBS: (names, outcomes),
        catalogue.JOB_RUN: (names,),
        catalogue.JOB_WAIT: ((*taken, OTHER),),
        catalogue.REDELIVERIES: (names,),
        catalogue.BATCH_ITEMS_ENDED: (ended,),
        catalogue.POOL_CONNECTIONS: (("in_use", "idle"),),
    }
    for metric in _PLAIN:
        domains[metric] = ()
    return Cells(domains.items(), lanes=1 + processes + _SPARE_LANES)


_PLAIN = (
    catalogue.LEASES_LAPSED,
    catalogue.CONNECTIONS_LOST,
    catalogue.PROCESS_STARTS,
    catalogue.LIMIT_REFUSALS,
    catalogue.STATEMENTS,
    catalogue.SLOW_STATEMENTS,
    catalogue.POOL_WAITS,
    catalogue.POOL_TIMEOUTS,
)


def begin(laid_out: Cells, number: int = 0) -> None:
    """Count in this lane from now on."""
    global _lane
    _lane = Lane(number, laid_out, laid_out.lane(number))
    tally.listen(_take_tally)


def waited(task: str, seconds: float) -> None:
    """Count the wait of a job that starts for the first time."""
    if _lane is not None:
        _lane.observe(catalogue.JOB_WAIT, queue_for(task).value, seconds)


def redelivered(task: str) -> None:
    """Count a job that starts again after its process or worker was lost."""
    add(catalogue.REDELIVERIES, task)


def ended(task: str, outcome: Outcome, seconds: float | None = None) -> None:
    """Count a run of a job, with how long it took where it ran in this process."""
    if _lane is None:
        return
    _lane.add(catalogue.JOBS, task, outcome.value)
    if seconds is not None:
        _lane.observe(catalogue.JOB_RUN, task, seconds)


def add(metric: Metric, *values: str, by: float = 1) -> None:
    """Add to a counter of this process."""
    if _lane is not None:
        _lane.add(metric, *values, by=by)


def take_pool(read: Callable[[], PoolCounts | None]) -> None:
    """Bring the counters of this process's pool up to date; called when a job has ended."""
    if _lane is None or (now := read()) is None:
        return
    before = _lane.pool
    if before is None or now.statements < before.statements:  # another pool than before
        before = PoolCounts()
    _lane.add(catalogue.STATEMENTS, by=now.statements - before.statements)
    _lane.add(catalogue.SLOW_STATEMENTS, by=now.slow_statements - before.slow_statements)
    _lane.add(catalogue.POOL_WAITS, by=now.waits - before.waits)
    _lane.add(catalogue.POOL_TIMEOUTS, by=now.timeouts - before.timeouts)
    _lane.set(catalogue.POOL_CONNECTIONS, "in_use", to=now.in_use)
    _lane.set(catalogue.POOL_CONNECTIONS, "idle", to=now.idle)
    _lane.pool = now


def _take_tally(what: tally.Counted, label: str, number: int) -> None:
    if what is tally.Counted.BATCH_ITEMS:
        add(catalogue.BATCH_ITEMS_ENDED, label, by=number)
    else:
        add(catalogue.LIMIT_REFUSALS, by=number)


@signals.celeryd_after_setup.connect
def _begin_in_main_process(instance: "Worker", **_: Any) -> None:
    tasks = [name for name in instance.app.tasks if not name.startswith("celery.")]
    queues = [str(name) for name in instance.app.amqp.queues.consume_from]
    begin(lay_out(tasks, queues, processes=int(instance.concurrency)))


@signals.worker_process_init.connect
def _begin_in_pool_process(**_: Any) -> None:
    if _lane is None:
        return
    number = 1 + int(getattr(current_process(), "index", 0))
    if number >= _lane.cells.lanes:
        _log.warning("process_not_counted", process=number, lanes=_lane.cells.lanes)
        _stop()
        return
    begin(_lane.cells, number)
    # What the process before it left of itself.
    for state in ("in_use", "idle"):
        _lane.set(catalogue.POOL_CONNECTIONS, state, to=0)
    add(catalogue.PROCESS_STARTS)


def _stop() -> None:
    global _lane
    _lane = None
    tally.listen(None)
