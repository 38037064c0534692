"""Queries on batches.

Invariant: each change of a batch's state is one guarded write, so that of many callers one makes
it. All need the models bound: `await connections.documents()` comes first.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from beanie.operators import In

from samplemind.connections.mongo import Fields, translating_errors
from samplemind.documents.batch_job import OPEN_BATCHES, BatchJob, BatchState
from samplemind.errors import NotFoundError

_OPEN = OPEN_BATCHES
_FED = (BatchState.PENDING, BatchState.RUNNING)


class BatchJobRepository:
    """Reads and writes batches."""

    async def add(self, job: BatchJob) -> None:
        """Store a new batch.

        Raises:
            ConflictError: there is one of this id.
        """
        with translating_errors():
            await job.insert()

    async def find(self, batch_id: UUID) -> BatchJob | None:
        """Return one batch, or None."""
        with translating_errors():
            return await BatchJob.get(batch_id)

    async def get(self, batch_id: UUID) -> BatchJob:
        """Return one batch.

        Raises:
            NotFoundError: there is none of this id.
        """
        job = await self.find(batch_id)
        if job is None:
            message = f"there is no batch {batch_id}"
            raise NotFoundError(message)
        return job

    async def find_many(self, ids: Sequence[UUID]) -> list[BatchJob]:
        """Return those of the batches that exist, in no order."""
        with translating_errors():
            return await BatchJob.find(In(BatchJob.id, ids)).to_list()

    async def list_newest(
        self,
        *,
        owner_id: UUID | None = None,
        state: BatchState | None = None,
        skip: int = 0,
        limit: int = 50,
    ) -> list[BatchJob]:
        """Return batches, the last submitted first; an owner or state that is None isn't asked."""
        wanted = {"owner_id": owner_id, "state": state}
        query = BatchJob.find({name: value for name, value in wanted.items() if value is not None})
        with translating_errors():
            return await query.sort("-created_at").skip(skip).limit(limit).to_list()

    async def count_by_state(self) -> dict[str, int]:
        """Return how many batches are in each state, every state being named."""
        counts = {state.value: 0 for state in BatchState}
        pipeline: list[Fields] = [{"$group": {"_id": "$state", "batches": {"$sum": 1}}}]
        with translating_errors():
            cursor = await BatchJob.get_pymongo_collection().aggregate(
                pipeline, hint="batches_by_state"
            )
            async for group in cursor:
                counts[group["_id"]] = group["batches"]
        return counts

    async def list_open(self) -> list[UUID]:
        """Return the ids of all batches that have not ended."""
        cursor = BatchJob.get_pymongo_collection().find({"state": {"$in": _OPEN}}, {"_id": 1})
        with translating_errors():
            return [job["_id"] async for job in cursor]

    async def list_fed(self, owner_id: UUID | None) -> list[BatchJob]:
        """Return the owner's batches of which items may be handed out, the oldest first."""
        query = BatchJob.find({"state": {"$in": _FED}, "owner_id": owner_id})
        with translating_errors():
            return await query.sort("created_at").to_list()

    async def list_owners_fed(self) -> list[UUID | None]:
        """Return the owners of batches of which items may be handed out."""
        with translating_errors():
            return await BatchJob.get_pymongo_collection().distinct(
                "owner_id", {"state": {"$in": _FED}}
            )

    async def pause(self, batch_id: UUID, now: datetime) -> bool:
        """Pause a batch that runs or waits; return whether this call did it."""
        return await self._change(
            {"_id": batch_id, "state": {"$in": _FED}},
            {"$set": {"state": BatchState.PAUSED, "paused_at": now}},
        )

    async def resume(self, batch_id: UUID, now: datetime) -> bool:
        """Let a paused batch go on; return whether this call did it."""
        paused_ms: Fields = {"$subtract": [now, {"$ifNull": ["$paused_at", now]}]}
        # Before its first item it had not begun, so the pause is no part of its time.
        begun: Fields = {"$ne": ["$started_at", None]}
        return await self._change(
            {"_id": batch_id, "state": BatchState.PAUSED},
            [
                {
                    "$set": {
                        "state": {"$cond": [begun, BatchState.RUNNING, BatchState.PENDING]},
                        "paused_at": None,
                        "paused_s": {
                            "$add": [
                                {"$ifNull": ["$paused_s", 0.0]},
                                {"$cond": [begun, {"$divide": [paused_ms, 1000]}, 0.0]},
                            ]
                        },
                    }
                }
            ],
        )

    async def list_callbacks_due(self) -> list[BatchJob]:
        """Return finished batches whose callback is not known to be sent."""
        query = BatchJob.find(
            {
                "state": BatchState.FINISHED,
                "callback": {"$ne": None},
                "callback_sent_at": None,
            }
        )
        with translating_errors():
            return await query.to_list()

    async def note_callback(self, batch_id: UUID, now: datetime) -> bool:
        """Note that a batch's callback is sent; return whether this call did it."""
        return await self._change(
            {"_id": batch_id, "callback_sent_at": None}, {"$set": {"callback_sent_at": now}}
        )

    async def start(self, batch_id: UUID, now: datetime) -> None:
        """Note that the first item is being worked on; only the first call changes anything."""
        await self._change(
            {"_id": batch_id, "state": BatchState.PENDING},
            {"$set": {"state": BatchState.RUNNING, "started_at": now}},
        )

    async def finish(
        self, batch_id: UUID, *, epoch: int, counts: Mapping[str, int], now: datetime
    ) -> bool:
        """End a batch whose items were counted in this epoch; return whether this call did it."""
        return await self._change(
            {"_id": batch_id, "state": {"$in": _OPEN}, "epoch": epoch},
            {"$set": {"state": BatchState.FINISHED, "counts": dict(counts), "finished_at": now}},
        )

    async def reopen(self, batch_id: UUID) -> bool:
        """Let a batch run again, whose items were opened; False if it was cancelled meanwhile.

        One that is paused stays so.
        """
        paused: Fields = {"$eq": ["$state", BatchState.PAUSED]}
        return await self._change(
            {"_id": batch_id, "state": {"$ne": BatchState.CANCELLED}},
            [
                {
                    "$set": {
                        "state": {"$cond": [paused, BatchState.PAUSED, BatchState.RUNNING]},
                        "counts": None,
                        "finished_at": None,
                        "epoch": {"$add": ["$epoch", 1]},
                    }
                }
            ],
        )

    async def cancel(self, batch_id: UUID, now: datetime) -> bool:
        """Cancel a batch that has not ended; return whether this call did it."""
        return await self._change(
            {"_id": batch_id, "state": {"$in": _OPEN}},
            {"$set": {"state": BatchState.CANCELLED, "finished_at": now}},
        )

    async def store_cancelled_counts(self, batch_id: UUID, counts: Mapping[str, int]) -> None:
        """Keep the final counts of a cancelled batch."""
        await self._change(
            {"_id": batch_id, "state": BatchState.CANCELLED}, {"$set": {"counts": dict(counts)}}
        )

    async def _change(self, where: Fields, change: Fields | list[Fields]) -> bool:
        with translating_errors():
            result = await BatchJob.get_pymongo_collection().update_one(where, change)
        return result.matched_count == 1
