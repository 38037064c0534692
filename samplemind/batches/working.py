"""One chunk from its message to its end: a place under the owner's limit, the work, what follows.

Invariant: a chunk that is refused by a limit, or whose batch is paused, goes back to wait where the
feeder finds it; its message is done with, no attempt is counted and nobody asks again meanwhile.
Whatever ends the work, the place is given up, or ends by its lease.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from samplemind import limits
from samplemind.batches.callbacks import SendOnce, send_callback
from samplemind.batches.chunks import ChunkReport
from samplemind.batches.feeding import Send, feed
from samplemind.batches.kind import Work, find_kind
from samplemind.batches.lifecycle import finish
from samplemind.batches.renewal import keeping
from samplemind.documents.batch_job import BatchJob, BatchState
from samplemind.errors import TransientError
from samplemind.ids import new_id
from samplemind.limit import Limit
from samplemind.limits import Place
from samplemind.log import get_logger
from samplemind.repositories.batch_items import BatchItemRepository, Chunk
from samplemind.repositories.batch_jobs import BatchJobRepository
from samplemind.tally import Counted, count

_log = get_logger(__name__)


def work_chunk(given: Work, *, send: Send, send_once: SendOnce) -> ChunkReport:
    """Work through a chunk as its batch's kind does, then do what its end allows.

    Raises:
        StoreUnavailableError: a store did not answer; deliver the job again.
        NotFoundError: there is no such batch.
        InvalidInputError: this version of the code does not know the batch's kind.
    """
    job = given.run(_read(given))
    kind = find_kind(job.kind)
    limit = given.connections.settings.limits.of(job.owner_id)
    with _place(given, job, limit) as admitted:
        if not admitted:
            return ChunkReport(stopped=True)
        _feed(given, job, send, beginning=given.chunk)
        report = kind.work(given)
    if not report.again:
        if given.run(finish(given.connections, job.id)):
            send_callback(given.connections, job.id, run=given.run, send_once=send_once)
        _feed(given, job, send)
    return report


@contextmanager
def _place(given: Work, job: BatchJob, limit: Limit) -> Iterator[bool]:
    """Hold a place for the block, if the chunk may begin now; else let its items wait again."""
    if job.state is BatchState.PAUSED:
        given.run(_put_back(given))
        yield False
        return
    if limit.is_none:
        yield True
        return
    connections, lease_s = given.connections, given.connections.settings.batch.claim_s
    place = Place(limits.owner_key(job.owner_id), given.job_id, new_id().hex)
    wait_s = given.run(limits.enter(connections.broker, place, limit, lease_s=lease_s))
    if wait_s is not None:
        given.run(_put_back(given))
        count(Counted.LIMIT_REFUSALS, "owner")
        _log.info("batch_chunk_waits", batch_id=str(job.id), wait_s=round(wait_s, 1))
        yield False
        return
    with keeping(connections, place, given.run, lease_s=lease_s):
        yield True


def _feed(given: Work, job: BatchJob, send: Send, *, beginning: Chunk | None = None) -> None:
    try:
        given.run(feed(given.connections, job.owner_id, send, beginning=beginning))
    except TransientError as error:
        # Someone else will; the chunk at hand is worth more than its successors.
        _log.warning("batch_not_fed", batch_id=str(job.id), reason=str(error))


async def _read(given: Work) -> BatchJob:
    await given.connections.documents()
    return await BatchJobRepository().get(given.chunk.batch_id)


async def _put_back(given: Work) -> None:
    await given.connections.documents()
    await BatchItemRepository().take_back(given.chunk.batch_id, given.chunk)
