"""How the batches that have not ended stand, all together, for metrics.

Invariant: it reads through an index and binds no document model, so that it can be asked by a
process in which the models belong to another event loop.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from pymongo.asynchronous.database import AsyncDatabase

from samplemind.connections.mongo import Fields, translating_errors
from samplemind.documents.batch_item import BatchItem, ItemState
from samplemind.documents.batch_job import OPEN_BATCHES, BatchJob, BatchState

_MOST_BATCHES = 500
"""Batches whose items are counted, the oldest first."""


@dataclass(frozen=True, slots=True)
class BatchesStanding:
    """Open batches by state, their items by state, and how many items of each running one ended."""

    batches: Mapping[str, int]
    items: Mapping[str, int]
    ended: Mapping[UUID, int]


async def batches_standing(database: AsyncDatabase[Fields]) -> BatchesStanding:
    """Return how the open batches stand.

    Raises:
        StoreUnavailableError: MongoDB did not answer.
    """
    batches = {state.value: 0 for state in OPEN_BATCHES}
    states: dict[UUID, str] = {}
    with translating_errors():
        cursor = database[BatchJob.Settings.name].find(
            {"state": {"$in": [state.value for state in OPEN_BATCHES]}}, {"state": 1}
        )
        async for job in cursor.sort("_id"):
            batches[job["state"]] += 1
            states[job["_id"]] = job["state"]
    counted = list(states)[:_MOST_BATCHES]
    items = {state.value: 0 for state in ItemState}
    ended = {batch: 0 for batch in counted if states[batch] != BatchState.PAUSED.value}
    if not counted:
        return BatchesStanding(batches, items, ended)
    with translating_errors():
        groups = await database[BatchItem.Settings.name].aggregate(
            [
                {"$match": {"batch_id": {"$in": counted}}},
                {
                    "$group": {
                        "_id": {"batch": "$batch_id", "state": "$state"},
                        "items": {"$sum": 1},
                    }
                },
            ],
            hint="items_of_batch_by_state",
        )
        async for group in groups:
            batch, state = group["_id"]["batch"], group["_id"]["state"]
            items[state] += group["items"]
            if batch in ended and state not in (ItemState.PENDING, ItemState.CLAIMED):
                ended[batch] += group["items"]
    return BatchesStanding(batches, items, ended)
