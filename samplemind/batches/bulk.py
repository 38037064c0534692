"""The loop of kinds that take many items in one step, such as one statement for all of them.

Invariant: whatever ends the loop, each item is ended, given back, or still under a claim that ends
by itself. Where a step fails on some item, its items are taken one by one, so that one bad item
ends itself and no other.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from uuid import UUID

from samplemind.batches.chunks import ChunkReport
from samplemind.batches.claims import Claim, ClaimedItem, claim, release
from samplemind.batches.kind import Work
from samplemind.batches.outcomes import ItemOutcome, outcome_of_error
from samplemind.batches.planning import Subject
from samplemind.batches.recording import end_items
from samplemind.batches.renewal import renewing
from samplemind.connections.resources import Connections
from samplemind.documents.text import load_path
from samplemind.errors import TransientError
from samplemind.log import get_logger
from samplemind.repositories.audio_files import AudioFileRepository

_STEP = 250

_log = get_logger(__name__)

Step = Callable[[Connections, Claim, Sequence[ClaimedItem]], Awaitable[Sequence[ItemOutcome]]]
"""Does the work for some items, which may have been done before, and says how each ended."""


def work_in_bulk(given: Work, step: Step) -> ChunkReport:
    """Work through a chunk step by step.

    Raises:
        StoreUnavailableError: a store did not answer; deliver the job again.
        NotFoundError: there is no such batch.
    """
    chunk = given.chunk
    taken = given.run(
        claim(given.connections, chunk.batch_id, chunk.first, chunk.last, job_id=given.job_id)
    )
    report = ChunkReport(claimed=len(taken.items))
    if not taken.items:
        return report
    with renewing(given.connections, taken, given.run) as renewal:
        try:
            for start in range(0, len(taken.items), _STEP):
                if renewal.lost:
                    report.stopped = True
                    break
                items = taken.items[start : start + _STEP]
                outcomes = _outcomes(given, taken, items, step)
                if given.run(end_items(given.connections, taken, outcomes)) < len(items):
                    given.run(renewal.check())
        except TransientError:
            # The store is away: the claim ends by itself, or at once for the same job.
            raise
        except BaseException:
            _give_back(given, taken)
            raise
    return report


async def library_of(connections: Connections, owner_id: UUID | None) -> AsyncIterator[Subject]:
    """Stream every file of the owner."""
    await connections.documents()
    async for file_id, path in AudioFileRepository().stream_paths(owner_id):
        yield Subject(load_path(path), file_id)


def _outcomes(
    given: Work, taken: Claim, items: Sequence[ClaimedItem], step: Step
) -> Sequence[ItemOutcome]:
    async def take_step() -> Sequence[ItemOutcome]:
        return await step(given.connections, taken, items)

    passed_on: tuple[type[Exception], ...] = (TransientError, *given.interruptions)
    try:
        return given.run(take_step())
    except passed_on:
        raise
    except Exception as error:  # noqa: BLE001  # The edge around items: others go on.
        if len(items) == 1:
            _log.exception("batch_item_failed", item_id=str(items[0].id))
            return [outcome_of_error(items[0], error)]
    return [outcome for item in items for outcome in _outcomes(given, taken, [item], step)]


def _give_back(given: Work, taken: Claim) -> None:
    try:
        given.run(release(given.connections, taken))
    except TransientError as error:
        _log.warning("batch_claim_left", batch_id=str(taken.batch_id), reason=str(error))
