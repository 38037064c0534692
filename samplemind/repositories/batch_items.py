"""Queries on the items of batches.

Invariant: an item that is claimed changes only under its token, by the end of its claim, or by a
cancellation. Ends of claims are compared with MongoDB's clock, so the workers' don't matter. All
need the models bound: `await connections.documents()` comes first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pymongo import UpdateOne
from pymongo.asynchronous.collection import AsyncCollection

from samplemind.connections.mongo import Fields, translating_errors
from samplemind.documents.batch_item import (
    OPEN_STATES,
    WAITING,
    BatchItem,
    ItemError,
    ItemState,
)

_OPEN = [str(state) for state in OPEN_STATES]
_DUE: Fields = {"$expr": {"$lt": ["$due_at", "$$NOW"]}}


@dataclass(frozen=True, slots=True)
class ItemEnd:
    """How one item ended.

    Attributes:
        seconds: that its analysis took; None where nothing was analysed.
    """

    item_id: UUID
    state: ItemState
    error: ItemError | None
    audio_file_id: UUID | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """The items of a batch from `first` to `last`, both included."""

    batch_id: UUID
    first: int
    last: int

    def where(self) -> Fields:
        """Return the filter that matches these items."""
        return {"batch_id": self.batch_id, "seq": {"$gte": self.first, "$lte": self.last}}


class BatchItemRepository:
    """Reads and writes batch items."""

    async def insert(self, items: Sequence[BatchItem]) -> None:
        """Store new items.

        Raises:
            ConflictError: one with the same batch and number exists.
        """
        documents = [item.model_dump(mode="python", by_alias=True) for item in items]
        with translating_errors():
            await self._items().insert_many(documents, ordered=False)

    async def delete_of_batch(self, batch_id: UUID) -> None:
        """Forget all items of a batch that was never submitted."""
        with translating_errors():
            await self._items().delete_many({"batch_id": batch_id})

    async def claim(self, chunk: Chunk, *, job_id: str, token: UUID, claim_s: float) -> None:
        """Put the token on every item that is pending, expired, or held by the same job."""
        free: list[Fields] = [
            {"state": ItemState.PENDING},
            {"state": ItemState.CLAIMED, "job_id": job_id},
            {"state": ItemState.CLAIMED} | _DUE,
        ]
        await self._update(
            chunk.where() | {"$or": free},
            [
                {
                    "$set": {
                        "state": ItemState.CLAIMED,
                        "claim": token,
                        "job_id": job_id,
                        "due_at": _after(claim_s),
                        "claims": {"$add": ["$claims", 1]},
                    }
                }
            ],
        )

    async def list_claimed(self, chunk: Chunk, token: UUID) -> list[BatchItem]:
        """Return the items under this token, in order."""
        query = BatchItem.find(_held(chunk, token)).sort("seq")
        with translating_errors():
            return await query.to_list()

    async def extend(self, chunk: Chunk, token: UUID, *, claim_s: float) -> int:
        """Let the claim last from now on; return how many items it still holds."""
        return await self._update(_held(chunk, token), [{"$set": {"due_at": _after(claim_s)}}])

    async def begin_trial(self, item_id: UUID, token: UUID) -> bool:
        """Note that an item's analysis begins alone; False if the claim no longer holds it."""
        found = await self._update({"_id": item_id, "claim": token}, {"$inc": {"trials": 1}})
        return found == 1

    async def count_attempt(self, item_id: UUID, token: UUID, *, trial: bool) -> bool:
        """Note that the machine failed an item; False if the claim no longer holds it.

        Args:
            trial: it was begun alone, and its worker came out of it.
        """
        counted = {"attempts": 1, "trials": -1 if trial else 0}
        return await self._update({"_id": item_id, "claim": token}, {"$inc": counted}) == 1

    async def end(self, token: UUID, ends: Sequence[ItemEnd], now: datetime) -> int:
        """Store how items ended, where the token still holds them; return how many it did."""
        writes = [
            UpdateOne(
                {"_id": end.item_id, "claim": token, "state": ItemState.CLAIMED},
                {"$set": _ended(end, now)},
            )
            for end in ends
        ]
        if not writes:
            return 0
        with translating_errors():
            result = await self._items().bulk_write(writes, ordered=False)
        return result.modified_count

    async def release(
        self, chunk: Chunk, token: UUID, *, untouched: Iterable[UUID], patience_s: float
    ) -> int:
        """Give back all that the claim holds; for the untouched it counts as no claim.

        Args:
            patience_s: seconds after which they count as lost.
        """
        given_back = {
            "state": ItemState.PENDING,
            "claim": None,
            "job_id": None,
            "due_at": _after(patience_s),
        }
        held = _held(chunk, token)
        clean = await self._update(
            held | {"_id": {"$in": list(untouched)}},
            [{"$set": given_back | {"claims": {"$subtract": ["$claims", 1]}}}],
        )
        return clean + await self._update(held, [{"$set": given_back}])

    async def has_open(self, batch_id: UUID) -> bool:
        """Whether an item of the batch is pending or claimed."""
        with translating_errors():
            found = await self._items().find_one(
                {"batch_id": batch_id, "state": {"$in": _OPEN}}, {"_id": 1}
            )
        return found is not None

    async def count_by_state(self, batch_id: UUID) -> dict[str, int]:
        """Return how many items are in each state, every state being named."""
        return (await self.count_many_by_state([batch_id]))[batch_id]

    async def count_many_by_state(self, batch_ids: Sequence[UUID]) -> dict[UUID, dict[str, int]]:
        """Return the same of several batches, in one round trip."""
        counts = {batch_id: {state.value: 0 for state in ItemState} for batch_id in batch_ids}
        pipeline: list[Fields] = [
            {"$match": {"batch_id": {"$in": list(batch_ids)}}},
            {"$group": {"_id": {"batch": "$batch_id", "state": "$state"}, "items": {"$sum": 1}}},
        ]
        with translating_errors():
            cursor = await self._items().aggregate(pipeline, hint="items_of_batch_by_state")
            async for group in cursor:
                counts[group["_id"]["batch"]][group["_id"]["state"]] = group["items"]
        return counts

    async def list_failed(self, batch_id: UUID, *, limit: int, after: int = -1) -> list[BatchItem]:
        """Return the failed items of a batch beyond the number `after`, in order."""
        query = BatchItem.find(
            BatchItem.batch_id == batch_id,
            BatchItem.state == ItemState.FAILED,
            BatchItem.seq > after,
        )
        with translating_errors():
            return await query.sort("seq").limit(limit).to_list()

    async def count_failed_by_code(self, batch_id: UUID) -> dict[str, int]:
        """Return how many items of a batch failed of what, the most frequent first."""
        pipeline: list[Fields] = [
            {"$match": {"batch_id": batch_id, "state": ItemState.FAILED}},
            {"$group": {"_id": "$error.code", "items": {"$sum": 1}}},
            {"$sort": {"items": -1, "_id": 1}},
        ]
        with translating_errors():
            cursor = await self._items().aggregate(pipeline, hint="items_of_batch_by_state")
            return {str(group["_id"]): int(group["items"]) async for group in cursor}

    async def count_handed_out(
        self, batch_ids: Sequence[UUID], *, beside: Chunk | None = None
    ) -> dict[UUID, int]:
        """Return how many pending items of each batch have a message on its way.

        Args:
            beside: items that are not counted.
        """
        where: Fields = {
            "batch_id": {"$in": list(batch_ids)},
            "state": {"$in": _OPEN},
            "due_at": {"$lt": WAITING},
        }
        own = [] if beside is None else [{"$match": {"$nor": [beside.where()]}}]
        pipeline: list[Fields] = [
            {"$match": where},
            {"$match": {"state": ItemState.PENDING}},
            *own,
            {"$group": {"_id": "$batch_id", "items": {"$sum": 1}}},
        ]
        with translating_errors():
            cursor = await self._items().aggregate(pipeline, hint="open_items_of_batch")
            return {group["_id"]: int(group["items"]) async for group in cursor}

    async def first_waiting(self, batch_id: UUID) -> int | None:
        """Return the number of the first item that was not handed out; None: all were."""
        where: Fields = {"batch_id": batch_id, "state": {"$in": _OPEN}, "due_at": WAITING}
        with translating_errors():
            found = await self._items().find_one(
                where, {"seq": 1}, sort=[("seq", 1)], hint="open_items_of_batch"
            )
        return None if found is None else int(found["seq"])

    async def hand_out(self, chunk: Chunk, first: int, *, patience_s: float) -> bool:
        """Note that a message is sent for the waiting items of a chunk.

        Args:
            first: the number of the first of them.
            patience_s: seconds after which they count as lost.

        Returns:
            True to one of many callers at once: the one that is to send the message.
        """
        waiting: Fields = {"state": ItemState.PENDING, "due_at": WAITING}
        change: list[Fields] = [{"$set": {"due_at": _after(patience_s)}}]
        await self._update(
            chunk.where() | waiting | {"seq": {"$gt": first, "$lte": chunk.last}}, change
        )
        # The first is last, and one caller's: after it there is nothing left to be found.
        return await self._update({"batch_id": chunk.batch_id, "seq": first} | waiting, change) == 1

    async def take_back(self, batch_id: UUID, chunk: Chunk | None = None) -> int:
        """Let handed out items of a batch, or of one chunk, wait again; return how many."""
        where: Fields = {"batch_id": batch_id} if chunk is None else chunk.where()
        return await self._update(
            where | {"state": ItemState.PENDING, "due_at": {"$lt": WAITING}},
            {"$set": {"due_at": WAITING}},
        )

    async def cancel_open(self, batch_id: UUID, now: datetime) -> int:
        """End every open item as cancelled and take its claim away; return how many."""
        ended = {"state": ItemState.CANCELLED, "claim": None, "due_at": None, "finished_at": now}
        return await self._update({"batch_id": batch_id, "state": {"$in": _OPEN}}, {"$set": ended})

    async def reset_failed(self, batch_id: UUID, *, patience_s: float) -> int:
        """Make every failed item pending, as if it had never been tried; return how many.

        Args:
            patience_s: seconds after which they count as lost.
        """
        fresh = {
            "state": ItemState.PENDING,
            "due_at": _after(patience_s),
            "claims": 0,
            "attempts": 0,
            "trials": 0,
            "error": None,
            "seconds": None,
            "finished_at": None,
        }
        return await self._update(
            {"batch_id": batch_id, "state": ItemState.FAILED}, [{"$set": fresh}]
        )

    async def list_due(self, *, limit: int) -> list[BatchItem]:
        """Return open items whose claim or message counts as lost, the longest lost first."""
        query = BatchItem.find({"state": {"$in": _OPEN}} | _DUE)
        with translating_errors():
            return await query.sort("due_at").limit(limit).to_list()

    async def reset_due(self, chunk: Chunk, *, patience_s: float | None) -> int:
        """Make those items of a chunk pending that are lost at this moment; return how many.

        Args:
            patience_s: seconds after which they count as lost again; None: they wait to be handed
                out.
        """
        due_at = WAITING if patience_s is None else _after(patience_s)
        pending = {"state": ItemState.PENDING, "claim": None, "due_at": due_at}
        return await self._update(
            chunk.where() | {"state": {"$in": _OPEN}} | _DUE, [{"$set": pending}]
        )

    async def hasten(self, chunk: Chunk) -> int:
        """Let the pending items of a chunk count as lost at once; return how many."""
        return await self._update(
            chunk.where() | {"state": ItemState.PENDING}, [{"$set": {"due_at": "$$NOW"}}]
        )

    @staticmethod
    def _items() -> AsyncCollection[Fields]:
        return BatchItem.get_pymongo_collection()

    async def _update(self, where: Fields, change: Fields | list[Fields]) -> int:
        with translating_errors():
            result = await self._items().update_many(where, change)
        return result.matched_count


def _held(chunk: Chunk, token: UUID) -> Fields:
    return chunk.where() | {"claim": token, "state": ItemState.CLAIMED}


def _after(seconds: float) -> Fields:
    # A number added to a date counts milliseconds.
    return {"$add": ["$$NOW", round(seconds * 1000)]}


def _ended(end: ItemEnd, now: datetime) -> Fields:
    return {
        "state": end.state,
        "error": None if end.error is None else end.error.model_dump(),
        "audio_file_id": end.audio_file_id,
        "seconds": end.seconds,
        "finished_at": now,
        "claim": None,
        "due_at": None,
    }
