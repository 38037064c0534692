"""How far a batch is.

Invariant: the counts add up to the total. While the batch runs they are counted from its items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from samplemind.connections.resources import Connections
from samplemind.documents.batch_item import ItemState
from samplemind.documents.batch_job import BatchJob, BatchState
from samplemind.repositories.batch_items import BatchItemRepository
from samplemind.repositories.batch_jobs import BatchJobRepository


@dataclass(frozen=True, slots=True)
class Progress:
    """How many items are where.

    Attributes:
        seconds: since the first item was begun, until now or the end, without pauses; 0 before.
        rate: items ended a second; 0 before the first.
        eta: seconds until the rest has ended at this rate; None where that can't be told.
    """

    batch_id: UUID
    kind: str
    state: BatchState
    total: int
    pending: int
    claimed: int
    done: int
    failed: int
    skipped: int
    cancelled: int
    seconds: float
    rate: float
    eta: float | None

    @property
    def ended(self) -> int:
        """Items that need no more work."""
        return self.total - self.pending - self.claimed


async def progress(connections: Connections, batch_id: UUID) -> Progress:
    """Count a batch's items.

    Raises:
        NotFoundError: there is no such batch.
    """
    await connections.documents()
    job = await BatchJobRepository().get(batch_id)
    counts = job.counts
    if counts is None:
        counts = await BatchItemRepository().count_by_state(batch_id)
    return measure_progress(job, counts, datetime.now(UTC))


async def progress_of(connections: Connections, jobs: Sequence[BatchJob]) -> list[Progress]:
    """Count the items of several batches, in one round trip, and in the order given."""
    await connections.documents()
    running = [job.id for job in jobs if job.counts is None]
    counted = await BatchItemRepository().count_many_by_state(running) if running else {}
    now = datetime.now(UTC)
    return [
        measure_progress(job, counted[job.id] if job.counts is None else job.counts, now)
        for job in jobs
    ]


def measure_progress(job: BatchJob, counts: Mapping[str, int], now: datetime) -> Progress:
    """Return the progress that these counts mean at this time."""
    open_items = counts[ItemState.PENDING] + counts[ItemState.CLAIMED]
    ended = job.total - open_items
    seconds = 0.0
    if job.started_at is not None:
        until = job.finished_at or job.paused_at or now
        seconds = max(0.0, (until - job.started_at).total_seconds() - job.paused_s)
    rate = ended / seconds if seconds > 0 else 0.0
    running = job.state in (BatchState.PENDING, BatchState.RUNNING)
    eta: float | None = 0.0
    if open_items and job.state is BatchState.PAUSED:
        eta = None
    elif open_items and running:
        eta = open_items / rate if rate > 0 else None
    return Progress(
        batch_id=job.id,
        kind=job.kind,
        state=job.state,
        total=job.total,
        seconds=seconds,
        rate=rate,
        eta=eta,
        **{state.value: counts[state] for state in ItemState},
    )
