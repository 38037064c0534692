"""The end of a batch, its pause and cancellation, and a second chance for what failed.

Invariant: each ending of a batch is told to one caller. A cancelled batch has no open item and is
never opened again.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from samplemind.batches.planning import PATIENCE
from samplemind.connections.resources import Connections
from samplemind.documents.batch_job import OPEN_BATCHES, BatchState
from samplemind.documents.text import load_path
from samplemind.errors import ConflictError
from samplemind.repositories.batch_items import BatchItemRepository
from samplemind.repositories.batch_jobs import BatchJobRepository


@dataclass(frozen=True, slots=True)
class FailedItem:
    """A file that failed, and why."""

    seq: int
    path: Path
    code: str
    message: str


async def finish(connections: Connections, batch_id: UUID) -> bool:
    """End a batch that has no open item; return True to the one caller whose call did it.

    Raises:
        NotFoundError: there is no such batch.
    """
    await connections.documents()
    jobs, items = BatchJobRepository(), BatchItemRepository()
    # The epoch is read before the items: if any is opened after this, the write below fails.
    job = await jobs.get(batch_id)
    if job.state not in OPEN_BATCHES or await items.has_open(batch_id):
        return False
    counts = await items.count_by_state(batch_id)
    return await jobs.finish(batch_id, epoch=job.epoch, counts=counts, now=datetime.now(UTC))


async def pause(connections: Connections, batch_id: UUID) -> bool:
    """Begin nothing more of a batch until `resume`; return whether this call paused it.

    A chunk that a worker has begun is worked on to its end, which takes seconds.

    Raises:
        NotFoundError: there is no such batch.
    """
    await connections.documents()
    await BatchJobRepository().get(batch_id)
    paused = await BatchJobRepository().pause(batch_id, datetime.now(UTC))
    # Messages that are on their way find nothing to do; the feeder leaves a paused batch out.
    await BatchItemRepository().take_back(batch_id)
    return paused


async def resume(connections: Connections, batch_id: UUID) -> bool:
    """Let a paused batch go on; return whether this call did it. The caller then feeds it.

    Raises:
        NotFoundError: there is no such batch.
    """
    await connections.documents()
    await BatchJobRepository().get(batch_id)
    # What was handed out since the pause met workers that left it alone.
    await BatchItemRepository().take_back(batch_id)
    return await BatchJobRepository().resume(batch_id, datetime.now(UTC))


async def cancel(connections: Connections, batch_id: UUID) -> bool:
    """Cancel what has not ended; return whether this call cancelled the batch.

    Workers notice at their next write: the claim is gone. What they found by then is kept for the
    library, but the item stays cancelled. Repeating it completes a cancellation that was cut off.

    Raises:
        NotFoundError: there is no such batch.
    """
    await connections.documents()
    jobs = BatchJobRepository()
    job = await jobs.get(batch_id)
    cancelled = await jobs.cancel(batch_id, datetime.now(UTC))
    if cancelled or job.state is BatchState.CANCELLED:
        await complete_cancellation(batch_id)
    return cancelled


async def complete_cancellation(batch_id: UUID) -> None:
    """End the open items of a cancelled batch and keep its final counts."""
    items = BatchItemRepository()
    await items.cancel_open(batch_id, datetime.now(UTC))
    counts = await items.count_by_state(batch_id)
    await BatchJobRepository().store_cancelled_counts(batch_id, counts)


async def failed_items(
    connections: Connections, batch_id: UUID, *, limit: int = 1000, after: int = -1
) -> list[FailedItem]:
    """Return the files of a batch that failed, in order, at most `limit` beyond number `after`."""
    await connections.documents()
    found = await BatchItemRepository().list_failed(batch_id, limit=limit, after=after)
    return [
        FailedItem(
            item.seq,
            load_path(item.path),
            item.error.code if item.error else "",
            item.error.message if item.error else "",
        )
        for item in found
    ]


async def retry_failed(connections: Connections, batch_id: UUID) -> int:
    """Make the failed items pending again and let the batch run; return how many they are.

    The caller then feeds it. Repeating it after a crash completes it.

    Raises:
        NotFoundError: there is no such batch.
        ConflictError: the batch was cancelled.
    """
    await connections.documents()
    jobs, items = BatchJobRepository(), BatchItemRepository()
    job = await jobs.get(batch_id)
    if job.state is BatchState.CANCELLED:
        raise _cancelled(batch_id)
    # Items before the batch: whoever counted before this finds another epoch when it finishes.
    # Until the batch is open again they count as handed out, so that the rescue finds them.
    opened = await items.reset_failed(batch_id, patience_s=PATIENCE.total_seconds())
    if not await items.has_open(batch_id):
        return 0
    if not await jobs.reopen(batch_id):
        await complete_cancellation(batch_id)
        raise _cancelled(batch_id)
    await items.take_back(batch_id)
    return opened


def _cancelled(batch_id: UUID) -> ConflictError:
    return ConflictError(f"batch {batch_id} was cancelled: submit its files as a new one")
