"""From a stream of paths to a stored batch and the chunks to publish.

Invariant: the items are stored first and the batch last, so that a batch which can be seen is
whole; a plan that was cut off leaves items that no one sees and the rescue forgets. Memory does
not grow with the number of files.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from uuid import UUID

from samplemind.connections.resources import Connections
from samplemind.documents.batch_item import BatchItem, ItemState
from samplemind.documents.batch_job import MOST_ROOTS, BatchJob, BatchState
from samplemind.documents.text import store_path
from samplemind.errors import ConflictError, InvalidInputError
from samplemind.ids import new_id
from samplemind.repositories.batch_items import BatchItemRepository
from samplemind.repositories.batch_jobs import BatchJobRepository

# A chunk's message that brought no claim by then counts as lost. Publishing one again that only
# waits in a long queue does no harm: the second to arrive finds nothing to claim.
PATIENCE = timedelta(minutes=5)

_SLICE = 1000


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """A stored batch and how it is cut into jobs."""

    batch_id: UUID
    total: int
    chunk_size: int

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """The first and last item number of each job."""
        return [
            chunk_bounds(number, self.chunk_size, self.total)
            for number in range(-(-self.total // self.chunk_size))
        ]


def chunk_bounds(number: int, chunk_size: int, total: int) -> tuple[int, int]:
    """Return the first and last item number of a chunk, both included."""
    first = number * chunk_size
    return first, min(first + chunk_size, total) - 1


async def plan(
    connections: Connections,
    paths: Iterable[Path],
    *,
    owner_id: UUID | None,
    chunk_size: int | None = None,
    batch_id: UUID | None = None,
    roots: Sequence[Path] = (),
) -> BatchPlan:
    """Store a batch of these files; the caller publishes a job for each of its chunks.

    Doing it again with the same `batch_id` returns the stored batch, or starts anew where the
    first attempt was cut off. A batch without files is finished at once.

    Args:
        paths: of the files; read in slices, in a thread, so it may be a slow generator.
        owner_id: whose files they become; None for the library's own.
        chunk_size: items in one job; None: as the settings say.
        batch_id: chosen by a caller who may have to repeat this; None: a new one.
        roots: the files and folders that the user named, kept for display.

    Raises:
        InvalidInputError: more files than `settings.batch.max_files`, or no room for that many
            roots.
        ConflictError: another caller stores a batch of this id at the same time.
        StoreUnavailableError: MongoDB did not answer; repeat it with the same `batch_id`.
    """
    await connections.documents()
    settings = connections.settings.batch
    size = chunk_size or settings.chunk_size
    if len(roots) > MOST_ROOTS:
        message = f"a batch names at most {MOST_ROOTS} files and folders"
        raise InvalidInputError(message)
    if batch_id is not None:
        stored = await BatchJobRepository().find(batch_id)
        if stored is not None:
            return _plan_of(stored)
        await BatchItemRepository().delete_of_batch(batch_id)
    identity = batch_id or new_id()
    total = await _store_items(identity, iter(paths), settings.max_files)
    job = _make_job(identity, owner_id, total, size, roots)
    await _store_job(job)
    return _plan_of(job)


async def _store_items(batch_id: UUID, paths: Iterator[Path], max_files: int) -> int:
    items = BatchItemRepository()
    total = 0
    while part := await asyncio.to_thread(lambda: list(islice(paths, _SLICE))):
        if total + len(part) > max_files:
            await items.delete_of_batch(batch_id)
            message = f"a batch holds at most {max_files} files: submit the folders one by one"
            raise InvalidInputError(message)
        await items.insert(_make_items(batch_id, total, part, datetime.now(UTC)))
        total += len(part)
    return total


def _make_items(
    batch_id: UUID, first: int, paths: Sequence[Path], now: datetime
) -> list[BatchItem]:
    return [
        BatchItem(
            batch_id=batch_id,
            seq=first + place,
            path=store_path(path.absolute()),
            state=ItemState.PENDING,
            due_at=now + PATIENCE,
        )
        for place, path in enumerate(paths)
    ]


def _make_job(
    batch_id: UUID, owner_id: UUID | None, total: int, chunk_size: int, roots: Sequence[Path]
) -> BatchJob:
    now = datetime.now(UTC)
    job = BatchJob(
        id=batch_id,
        owner_id=owner_id,
        roots=[store_path(root.absolute()) for root in roots],
        total=total,
        chunk_size=chunk_size,
        created_at=now,
    )
    if total == 0:
        job.state = BatchState.FINISHED
        job.counts = dict.fromkeys(map(str, ItemState), 0)
        job.started_at = job.finished_at = now
    return job


async def _store_job(job: BatchJob) -> None:
    try:
        await BatchJobRepository().add(job)
    except ConflictError:
        # The driver may have sent the insert twice; what counts is that it is our batch.
        stored = await BatchJobRepository().get(job.id)
        if stored.total != job.total or stored.owner_id != job.owner_id:
            raise


def _plan_of(job: BatchJob) -> BatchPlan:
    return BatchPlan(job.id, job.total, job.chunk_size)
