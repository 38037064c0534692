"""Kinds of batches that do nothing, at once or after a while: for producers and workers."""

import time
from collections.abc import Sequence

from samplemind.batches import Claim, ClaimedItem, ItemOutcome, Kind, Work, add_kind
from samplemind.batches.bulk import work_in_bulk
from samplemind.batches.chunks import ChunkReport
from samplemind.connections.resources import Connections
from samplemind.documents.batch_item import ItemState
from samplemind.jobs.payloads import WorkBatch

SLOW_S = 0.01
"""Seconds for an item of the slow kind: a short file's analysis."""


async def _nothing(
    _: Connections, __: Claim, items: Sequence[ClaimedItem]
) -> Sequence[ItemOutcome]:
    return [ItemOutcome(item, ItemState.DONE) for item in items]


def _work(given: Work) -> ChunkReport:
    return work_in_bulk(given, _nothing)


def _work_slowly(given: Work) -> ChunkReport:
    time.sleep(SLOW_S * (given.chunk.last - given.chunk.first + 1))
    return work_in_bulk(given, _nothing)


def install() -> None:
    """Make both kinds known."""
    add_kind(Kind("noop", "does nothing", job=WorkBatch, work=_work, chunk_size=500))
    add_kind(Kind("slow", "takes a while", job=WorkBatch, work=_work_slowly, chunk_size=32))


install()
