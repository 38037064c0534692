"""Handing the chunks of batches out to the queue, a few at a time.

A queue is served in order, so ten files behind a hundred thousand would wait for all of them. Only
`settings.batch.window` chunks of an owner therefore wait in the queue; the rest waits in MongoDB
and is handed out as chunks are begun, first from the batch of which the fewest wait. So nobody
waits for more than the windows of others, however much these have submitted.

Invariant: feeding may happen at any time, by anyone, any number of times at once, and nothing
depends on a particular call: the start and the end of each chunk, each submission and a periodic
job all do it. Items are noted as handed out before their message is sent; if it is not, they count
as lost after `PATIENCE` and the rescue sends them. Limits are looked at before, so that what an
owner's limit would refuse stays where it is, without a message.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from samplemind import limits
from samplemind.batches.planning import PATIENCE, chunk_bounds
from samplemind.connections.resources import Connections
from samplemind.documents.batch_job import BatchJob
from samplemind.errors import TransientError
from samplemind.repositories.batch_items import BatchItemRepository, Chunk
from samplemind.repositories.batch_jobs import BatchJobRepository


@dataclass(frozen=True, slots=True)
class HandedOut:
    """A chunk for which a message is to be sent now, and what kind of batch it is of."""

    chunk: Chunk
    kind: str


Send = Callable[[Sequence[HandedOut]], None]
"""Sends the messages; blocking, so a loop calls it in a thread."""


async def feed(
    connections: Connections,
    owner_id: UUID | None,
    send: Send,
    *,
    beginning: Chunk | None = None,
) -> int:
    """Hand out what of an owner's batches goes to the queue now; return how many chunks.

    Args:
        beginning: a chunk that a worker has just taken from the queue.

    Raises:
        StoreUnavailableError: a store did not answer; what was not sent waits for the next call.
    """
    handed_out = await hand_out(connections, owner_id, beginning=beginning)
    if handed_out:
        try:
            await asyncio.to_thread(send, handed_out)
        except TransientError:
            for each in handed_out:
                await BatchItemRepository().take_back(each.chunk.batch_id, each.chunk)
            raise
    return len(handed_out)


async def feed_all(connections: Connections, send: Send) -> int:
    """Hand out what of every owner's batches goes to the queue now; return how many chunks.

    Raises:
        StoreUnavailableError: a store did not answer; the next call goes on.
    """
    await connections.documents()
    owners = await BatchJobRepository().list_owners_fed()
    return sum([await feed(connections, owner_id, send) for owner_id in owners])


async def hand_out(
    connections: Connections, owner_id: UUID | None, *, beginning: Chunk | None = None
) -> list[HandedOut]:
    """Choose what of an owner's batches goes to the queue now, and note it; the caller sends it.

    Args:
        beginning: a chunk that a worker has just taken from the queue.

    Raises:
        StoreUnavailableError: a store did not answer; the next call goes on.
    """
    await connections.documents()
    room = await _room(connections, owner_id)
    jobs = await BatchJobRepository().list_fed(owner_id) if room else []
    if not jobs:
        return []
    items = BatchItemRepository()
    pending = await items.count_handed_out([job.id for job in jobs], beside=beginning)
    waiting = {job.id: -(-pending.get(job.id, 0) // job.chunk_size) for job in jobs}
    room -= sum(waiting.values())
    handed_out: list[HandedOut] = []
    while room > 0 and jobs:
        job = next_batch(jobs, waiting)
        chunk = await _hand_out_next(job)
        if chunk is None:
            jobs.remove(job)
            continue
        handed_out.append(HandedOut(chunk, job.kind))
        waiting[job.id] += 1
        room -= 1
    return handed_out


def next_batch(jobs: Sequence[BatchJob], waiting: dict[UUID, int]) -> BatchJob:
    """Return the batch whose turn it is: the one of which the fewest chunks wait, then the oldest.

    Args:
        jobs: at least one, the oldest first.
        waiting: chunks in the queue, by batch.
    """
    return min(jobs, key=lambda job: waiting[job.id])


async def _room(connections: Connections, owner_id: UUID | None) -> int:
    settings = connections.settings
    limit = settings.limits.of(owner_id)
    allowed = await limits.room(connections.broker, limits.owner_key(owner_id), limit)
    window = settings.batch.window
    return window if allowed is None else min(window, allowed)


async def _hand_out_next(job: BatchJob) -> Chunk | None:
    items = BatchItemRepository()
    while (first := await items.first_waiting(job.id)) is not None:
        chunk = Chunk(job.id, *chunk_bounds(first // job.chunk_size, job.chunk_size, job.total))
        if await items.hand_out(chunk, first, patience_s=PATIENCE.total_seconds()):
            return chunk
        # Another feeder was faster, and sends its message.
    return None
