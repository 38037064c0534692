"""Who works on which items, and until when.

Invariant: an item is held under one token at a time. Every new claim has a fresh token, also of
the same job, so a worker that was paused and wakes up after its message went to another one can
end nothing that the other one holds.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from samplemind.batches.planning import PATIENCE
from samplemind.connections.resources import Connections
from samplemind.documents.audio_file import audio_file_id
from samplemind.documents.batch_item import BatchItem
from samplemind.documents.batch_job import BatchState
from samplemind.documents.text import load_path
from samplemind.ids import new_id
from samplemind.repositories.batch_items import BatchItemRepository, Chunk
from samplemind.repositories.batch_jobs import BatchJobRepository

_NOTHING_TO_BEGIN = (BatchState.FINISHED, BatchState.CANCELLED, BatchState.PAUSED)


@dataclass(frozen=True, slots=True)
class ClaimedItem:
    """One file to work on.

    Attributes:
        claims: how often it was claimed, this time included.
        attempts: how often it was read before, and the machine failed.
        trials: how often it was begun alone before, and ended its worker or was interrupted.
        file_id: of its document in the library, where the item is about that.
    """

    id: UUID
    seq: int
    path: Path
    claims: int
    attempts: int
    trials: int
    file_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The items that one job holds under one token."""

    chunk: Chunk
    owner_id: UUID | None
    token: UUID
    items: tuple[ClaimedItem, ...]

    @property
    def batch_id(self) -> UUID:
        """The batch of all the items."""
        return self.chunk.batch_id

    def file_id(self, item: ClaimedItem) -> UUID:
        """Return the id that the item's file has in the library, be it there or not."""
        return item.file_id or audio_file_id(self.owner_id, item.path)


async def claim(
    connections: Connections,
    batch_id: UUID,
    first: int,
    last: int,
    *,
    job_id: str,
    claim_s: float | None = None,
) -> Claim:
    """Take the items from `first` to `last` that nobody works on.

    These are the pending ones, those whose claim ended, and those that this very job held
    before: its message was delivered again, so the worker that had it is gone or given up.

    Args:
        job_id: the message's id, the same at each delivery.
        claim_s: seconds that the claim lasts unless extended; None: as the settings say.

    Returns:
        The claim; without items if there is nothing to do, or the batch has ended or is paused.

    Raises:
        NotFoundError: there is no such batch.
    """
    await connections.documents()
    jobs, items = BatchJobRepository(), BatchItemRepository()
    job = await jobs.get(batch_id)
    chunk, token = Chunk(batch_id, first, last), new_id()
    if job.state in _NOTHING_TO_BEGIN:
        return Claim(chunk, job.owner_id, token, ())
    if job.state is BatchState.PENDING:
        await jobs.start(batch_id, datetime.now(UTC))
    seconds = claim_s or connections.settings.batch.claim_s
    await items.claim(chunk, job_id=job_id, token=token, claim_s=seconds)
    claimed = await items.list_claimed(chunk, token)
    return Claim(chunk, job.owner_id, token, tuple(map(_claimed_item, claimed)))


async def extend(connections: Connections, claim: Claim, *, claim_s: float | None = None) -> int:
    """Let a claim last from now on; return how many items it still holds.

    None means that the batch was cancelled or the items went to another worker: stop.
    """
    await connections.documents()
    seconds = claim_s or connections.settings.batch.claim_s
    return await BatchItemRepository().extend(claim.chunk, claim.token, claim_s=seconds)


async def begin_trial(connections: Connections, claim: Claim, item: ClaimedItem) -> bool:
    """Note that an item is begun alone, so that its ending the worker is held against it only.

    Returns:
        False if the claim no longer holds the item.
    """
    await connections.documents()
    return await BatchItemRepository().begin_trial(item.id, claim.token)


async def count_attempt(
    connections: Connections, claim: Claim, item: ClaimedItem, *, trial: bool
) -> bool:
    """Note that the machine failed an item that was read, which the next claim is to know.

    Args:
        trial: it was begun alone; that is not held against it any more.

    Returns:
        False if the claim no longer holds the item.
    """
    await connections.documents()
    return await BatchItemRepository().count_attempt(item.id, claim.token, trial=trial)


async def release(
    connections: Connections, claim: Claim, *, untouched: Collection[UUID] = ()
) -> int:
    """Give back what a claim still holds, for any job to take at once; return how many.

    Args:
        untouched: items on which no work was begun; for them this claim does not count.
    """
    await connections.documents()
    return await BatchItemRepository().release(
        claim.chunk, claim.token, untouched=untouched, patience_s=PATIENCE.total_seconds()
    )


def _claimed_item(item: BatchItem) -> ClaimedItem:
    return ClaimedItem(
        item.id,
        item.seq,
        load_path(item.path),
        item.claims,
        item.attempts,
        item.trials,
        item.audio_file_id,
    )
