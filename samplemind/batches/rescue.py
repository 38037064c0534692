"""Finding what was lost: messages that never came, workers that never came back, cut-off writes.

Invariant: a rescuer hands a chunk out at most once in `PATIENCE`, and the older its items the more
rarely, so that a queue which is merely long is not flooded; one that no job could be published for
is handed out again at once. Handing one out too many does no harm: the second of two jobs for one
chunk finds nothing to claim.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from samplemind.batches.feeding import HandedOut
from samplemind.batches.lifecycle import complete_cancellation, finish
from samplemind.batches.planning import PATIENCE, chunk_bounds
from samplemind.batches.running import Run
from samplemind.connections.resources import Connections
from samplemind.documents.batch_item import BatchItem
from samplemind.documents.batch_job import BatchJob, BatchState
from samplemind.log import get_logger
from samplemind.repositories.batch_items import BatchItemRepository, Chunk
from samplemind.repositories.batch_jobs import BatchJobRepository

_AT_MOST = 20_000
_LONGEST_PATIENCE = timedelta(hours=1)
# A plan that is still being written has items and no batch; none takes this long.
_LONGEST_PLANNING = timedelta(days=1)

_log = get_logger(__name__)


@dataclass(slots=True)
class Findings:
    """What to do about lost items.

    Attributes:
        publish: chunks to hand out again.
        reopen: finished batches with open items, left by a retry that was cut off.
        cancel: cancelled batches with open items, left by a cancellation that was cut off.
        hold: chunks of paused batches, to wait until these are resumed.
        planning: items of batches that are not there yet.
        forget: batches that never came to be.
        patience: how long it takes until the items of a batch count as lost the next time.
    """

    publish: list[Chunk] = field(default_factory=list)
    reopen: list[UUID] = field(default_factory=list)
    cancel: list[UUID] = field(default_factory=list)
    hold: list[Chunk] = field(default_factory=list)
    planning: list[Chunk] = field(default_factory=list)
    forget: list[UUID] = field(default_factory=list)
    patience: dict[UUID, timedelta] = field(default_factory=dict)

    def patience_s(self, chunk: Chunk) -> float:
        """Return the patience with a chunk in seconds."""
        return self.patience[chunk.batch_id].total_seconds()


def republish(connections: Connections, *, run: Run, publish: Callable[[HandedOut], None]) -> None:
    """Publish again what nobody works on; what cannot be published is left to the next rescue.

    Args:
        run: runs a coroutine on the loop that owns the connections.
        publish: sends the job for a chunk.

    Raises:
        StoreUnavailableError: a store did not answer; the next run goes on.
    """
    waiting = deque(run(stalled(connections)))
    try:
        while waiting:
            publish(waiting[0])
            waiting.popleft()
    finally:
        if waiting:
            run(_return(connections, waiting))


async def _return(connections: Connections, chunks: Iterable[HandedOut]) -> None:
    await connections.documents()
    for lost in chunks:
        await BatchItemRepository().hasten(lost.chunk)


async def stalled(connections: Connections, now: datetime | None = None) -> list[HandedOut]:
    """Release lost items and return their chunks, to be published again.

    It also completes cancellations and retries that were cut off, ends batches whose last worker
    died before it could, and forgets the items of plans that were never completed.

    What is lost is judged by MongoDB's clock, at the moment of the write.

    Args:
        now: by which the age of items is told; None: this machine's clock.

    Raises:
        StoreUnavailableError: MongoDB did not answer; the next run goes on.
    """
    await connections.documents()
    moment = now or datetime.now(UTC)
    items, jobs = BatchItemRepository(), BatchJobRepository()
    lost = await items.list_due(limit=_AT_MOST)
    known = {job.id: job for job in await jobs.find_many(list({item.batch_id for item in lost}))}
    findings = examine_lost(lost, known, moment)
    for batch_id in findings.forget:
        await items.delete_of_batch(batch_id)
    for batch_id in findings.cancel:
        await complete_cancellation(batch_id)
    for chunk in findings.hold:
        await items.reset_due(chunk, patience_s=None)
    for chunk in findings.planning:
        await items.reset_due(chunk, patience_s=findings.patience_s(chunk))
    for batch_id in findings.reopen:
        await jobs.reopen(batch_id)
    for batch_id in await jobs.list_open():
        await finish(connections, batch_id)
    handed_out = [
        chunk
        for chunk in findings.publish
        # Another rescuer may have been here between the reading and this, or the claim's holder.
        if await items.reset_due(chunk, patience_s=findings.patience_s(chunk))
    ]
    if handed_out:
        _log.warning("batch_chunks_lost", chunks=len(handed_out), items=len(lost))
    return [HandedOut(chunk, known[chunk.batch_id].kind) for chunk in handed_out]


def examine_lost(
    lost: Iterable[BatchItem], jobs: Mapping[UUID, BatchJob], now: datetime
) -> Findings:
    """Decide what to do about each lost item."""
    numbers: dict[UUID, set[int]] = defaultdict(set)
    oldest: dict[UUID, datetime] = {}
    for item in lost:
        job = jobs.get(item.batch_id)
        numbers[item.batch_id].add(item.seq // job.chunk_size if job else item.seq)
        made = time_of(item.id)
        oldest[item.batch_id] = min(made, oldest.get(item.batch_id, made))
    findings = Findings()
    for batch_id, chunks in numbers.items():
        job = jobs.get(batch_id)
        age = now - oldest[batch_id]
        findings.patience[batch_id] = min(max(PATIENCE, age), _LONGEST_PATIENCE)
        if job is None:
            if age > _LONGEST_PLANNING:
                findings.forget.append(batch_id)
            else:
                findings.planning.append(Chunk(batch_id, min(chunks), max(chunks)))
        elif job.state is BatchState.CANCELLED:
            findings.cancel.append(batch_id)
        elif job.state is BatchState.PAUSED:
            findings.hold += _chunks_of(job, chunks)
        else:
            if job.state is BatchState.FINISHED:
                findings.reopen.append(batch_id)
            findings.publish += _chunks_of(job, chunks)
    return findings


def _chunks_of(job: BatchJob, numbers: Iterable[int]) -> list[Chunk]:
    return [
        Chunk(job.id, *chunk_bounds(number, job.chunk_size, job.total))
        for number in sorted(numbers)
    ]


def time_of(identity: UUID) -> datetime:
    """Return when a version 7 UUID was made (RFC 9562 section 5.7: the first 48 bits)."""
    return datetime.fromtimestamp((identity.int >> 80) / 1000, UTC)
