"""From a stream of subjects to a stored batch.

Invariant: the items are stored first and the batch last, so that a batch which can be seen is
whole; a plan that was cut off leaves items that no one sees and the rescue forgets. Memory does
not grow with the number of items. Nothing is handed out here: `feeding` does that.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from uuid import UUID

from samplemind.connections.resources import Connections
from samplemind.documents.batch_item import WAITING, BatchItem, ItemState
from samplemind.documents.batch_job import MOST_ROOTS, BatchJob, BatchState, Callback
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
class Subject:
    """What one item is about.

    Attributes:
        path: of the file, absolute.
        file_id: of its document in the library, where the item is about that.
    """

    path: Path
    file_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """A stored batch and how it is cut into jobs."""

    batch_id: UUID
    total: int
    chunk_size: int
    owner_id: UUID | None = None

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
    subjects: Iterable[Path] | AsyncIterator[Subject],
    *,
    owner_id: UUID | None,
    kind: str = "analyze",
    chunk_size: int | None = None,
    batch_id: UUID | None = None,
    roots: Sequence[Path] = (),
    callback: Callback | None = None,
) -> BatchPlan:
    """Store a batch of these subjects; the caller then feeds it to the workers.

    Doing it again with the same `batch_id` returns the stored batch, or starts anew where the
    first attempt was cut off. A batch without items is finished at once.

    Args:
        subjects: paths of files, read in slices, in a thread, so it may be a slow generator; or
            a stream of subjects.
        owner_id: whose files they are or become; None for the library's own.
        kind: what is done with each.
        chunk_size: items in one job; None: as the settings say.
        batch_id: chosen by a caller who may have to repeat this; None: a new one.
        roots: the files and folders that the user named, kept for display.
        callback: a job to send once the batch has finished.

    Raises:
        InvalidInputError: more items than `settings.batch.max_files`, or no room for that many
            roots.
        ConflictError: another caller stores a batch of this id at the same time.
        StoreUnavailableError: MongoDB did not answer; repeat it with the same `batch_id`.
    """
    await connections.documents()
    settings = connections.settings.batch
    if len(roots) > MOST_ROOTS:
        message = f"a batch names at most {MOST_ROOTS} files and folders"
        raise InvalidInputError(message)
    if batch_id is not None:
        stored = await BatchJobRepository().find(batch_id)
        if stored is not None:
            return _plan_of(stored)
        await BatchItemRepository().delete_of_batch(batch_id)
    identity = batch_id or new_id()
    source = subjects if isinstance(subjects, AsyncIterator) else _in_thread(iter(subjects))
    total = await _store_items(identity, source, settings.max_files)
    job = BatchJob(
        id=identity,
        kind=kind,
        owner_id=owner_id,
        roots=[store_path(root.absolute()) for root in roots],
        total=total,
        chunk_size=chunk_size or settings.chunk_size,
        created_at=datetime.now(UTC),
        callback=callback,
    )
    if total == 0:
        _finish_empty(job)
    await _store_job(job)
    await BatchItemRepository().take_back(identity)
    return _plan_of(job)


async def _in_thread(paths: Iterator[Path]) -> AsyncIterator[Subject]:
    while part := await asyncio.to_thread(lambda: list(islice(paths, _SLICE))):
        for path in part:
            yield Subject(path)


async def _store_items(batch_id: UUID, subjects: AsyncIterator[Subject], max_files: int) -> int:
    items = BatchItemRepository()
    total = 0
    part: list[BatchItem] = []
    async for subject in subjects:
        if total == max_files:
            await items.delete_of_batch(batch_id)
            message = f"a batch holds at most {max_files} files: submit the folders one by one"
            raise InvalidInputError(message)
        part.append(_make_item(batch_id, total, subject))
        total += 1
        if len(part) == _SLICE:
            await items.insert(part)
            part = []
    if part:
        await items.insert(part)
    return total


def _make_item(batch_id: UUID, seq: int, subject: Subject) -> BatchItem:
    return BatchItem(
        batch_id=batch_id,
        seq=seq,
        path=store_path(subject.path.absolute()),
        state=ItemState.PENDING,
        audio_file_id=subject.file_id,
        # By its first item the rescue finds a plan that was cut off before its batch was stored.
        due_at=WAITING if seq else datetime.now(UTC) + PATIENCE,
    )


def _finish_empty(job: BatchJob) -> None:
    job.state = BatchState.FINISHED
    job.counts = dict.fromkeys(map(str, ItemState), 0)
    job.started_at = job.finished_at = job.created_at


async def _store_job(job: BatchJob) -> None:
    try:
        await BatchJobRepository().add(job)
    except ConflictError:
        # The driver may have sent the insert twice; what counts is that it is our batch.
        stored = await BatchJobRepository().get(job.id)
        if stored.total != job.total or stored.owner_id != job.owner_id:
            raise


def _plan_of(job: BatchJob) -> BatchPlan:
    return BatchPlan(job.id, job.total, job.chunk_size, job.owner_id)
