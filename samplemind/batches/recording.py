"""Storing how items ended.

Invariant: the items are marked last. A crash after any step leaves them claimed, so the whole is
done again, and every step before then is one that a repeat does not change. What a worker stores
after it lost its claim is still true of the file (a later look at the file wins), but ends no item.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from samplemind.batches.claims import Claim
from samplemind.batches.outcomes import ItemOutcome
from samplemind.cache.features import AudioFeatureCache
from samplemind.connections.resources import Connections
from samplemind.documents.batch_item import ItemState
from samplemind.repositories.analyses import AnalysisRepository
from samplemind.repositories.audio_files import AudioFileRepository
from samplemind.repositories.batch_items import BatchItemRepository, ItemEnd
from samplemind.search.dirty import mark_dirty
from samplemind.tally import Counted, count


@dataclass(frozen=True, slots=True)
class Recorded:
    """What storing did.

    Attributes:
        finished: items that this claim really ended; fewer than were given if it lost some.
        drain_due: the caller is the one to queue a drain of the index.
    """

    finished: int
    drain_due: bool


async def record(
    connections: Connections, claim: Claim, outcomes: Sequence[ItemOutcome]
) -> Recorded:
    """Store results, files, ids to index and the ends of the items, in this order.

    Raises:
        StoreUnavailableError: a store did not answer; repeat it, or let the job be redelivered.
    """
    await connections.documents()
    now = datetime.now(UTC)
    await AnalysisRepository().insert_missing(
        [outcome.result for outcome in outcomes if outcome.result is not None]
    )
    await AudioFileRepository().write_found(
        [outcome.file for outcome in outcomes if outcome.file is not None], now
    )
    replaced = {
        (outcome.result.content_hash, outcome.superseded)
        for outcome in outcomes
        if outcome.result is not None and outcome.superseded is not None
    }
    features = AudioFeatureCache(connections.cached)
    await features.invalidate(replaced, connections.settings.audio.limits())
    drain_due = await mark_dirty(
        connections.broker,
        [
            outcome.audio_file_id
            for outcome in outcomes
            if outcome.audio_file_id is not None and outcome.state is not ItemState.SKIPPED
        ],
    )
    return Recorded(await end_items(connections, claim, outcomes), drain_due)


async def end_items(connections: Connections, claim: Claim, outcomes: Sequence[ItemOutcome]) -> int:
    """Mark how items ended, and nothing else; return how many this claim really ended.

    Raises:
        StoreUnavailableError: MongoDB did not answer; repeating it is harmless.
    """
    await connections.documents()
    ends = [_item_end(outcome) for outcome in outcomes]
    ended = await BatchItemRepository().end(claim.token, ends, datetime.now(UTC))
    # Of a claim that was lost meanwhile nobody knows which items it still ended.
    if ended == len(ends):
        for state, number in Counter(end.state for end in ends).items():
            count(Counted.BATCH_ITEMS, state.value, number)
    return ended


def _item_end(outcome: ItemOutcome) -> ItemEnd:
    return ItemEnd(
        item_id=outcome.item.id,
        state=outcome.state,
        error=outcome.error,
        audio_file_id=outcome.audio_file_id,
        seconds=outcome.seconds,
    )
