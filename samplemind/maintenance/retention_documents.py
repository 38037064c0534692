"""Retention of documents in MongoDB.

Invariant: items go before the batch that they belong to, so a batch without items is one whose
items are gone, never one that is still being written. What stands for a file under a held tag or of
a held user stays; where it cannot be told whose a document was, it stays while any hold counts.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pymongo.asynchronous.database import AsyncDatabase

from samplemind.connections.mongo import Fields, translating_errors
from samplemind.documents.batch_job import BatchState
from samplemind.maintenance.pace import Pace
from samplemind.maintenance.retention import Group, Holds

Pipeline = list[dict[str, Any]]
CurrentHolds = Callable[[], Awaitable[Holds]]
"""Reads the holds as they are at this moment."""

_ENDED = [BatchState.FINISHED.value, BatchState.CANCELLED.value]
_DAY = {"$dateTrunc": {"date": "$at", "unit": "day"}}


class DocumentSource:
    """Documents of one collection: which may go, how old they are, whose they are."""

    def __init__(self, database: AsyncDatabase[Fields], name: str) -> None:
        self._database = database
        self._collection, self._candidates = _SOURCES[name]

    async def groups(self, before: datetime) -> list[Group]:
        """Return what is older, by owner, tags and day."""
        pipeline = [
            *self._candidates(before),
            {"$set": {"size": {"$bsonSize": "$$ROOT"}}},
            {
                "$group": {
                    "_id": {"owner": "$owner", "tags": "$tags", "none": "$ownerless", "day": _DAY},
                    "oldest": {"$min": "$at"},
                    "newest": {"$max": "$at"},
                    "rows": {"$sum": 1},
                    "size_bytes": {"$sum": "$size"},
                }
            },
        ]
        with translating_errors():
            cursor = await self._database[self._collection].aggregate(pipeline, allowDiskUse=True)
            return [_group(found) async for found in cursor]

    async def delete(self, before: datetime, holds: CurrentHolds, pace: Pace) -> tuple[int, bool]:
        """Delete what is older and not held; return how many documents, and whether all."""
        deleted = 0
        with translating_errors():
            async for chunk in self._chunks(before, pace):
                current = await holds()
                ids = [found["_id"] for found in chunk if not _is_held(found, current)]
                with pace.chunk():
                    if ids:
                        gone = await self._database[self._collection].delete_many(
                            {"_id": {"$in": ids}}
                        )
                        deleted += gone.deleted_count
                if pace.is_over:
                    return deleted, False
                await pace.rest()
        return deleted, True

    async def _chunks(self, before: datetime, pace: Pace) -> AsyncIterator[Sequence[Fields]]:
        kept = {"$project": {"owner": 1, "tags": 1, "ownerless": 1}}
        cursor = await self._database[self._collection].aggregate(
            [*self._candidates(before), kept], allowDiskUse=True, batchSize=1000
        )
        chunk: list[Fields] = []
        async for found in cursor:
            chunk.append(found)
            if len(chunk) >= min(pace.size, 5000):
                yield chunk
                chunk = []
        if chunk:
            yield chunk


async def existing_files(database: AsyncDatabase[Fields], ids: Sequence[UUID]) -> set[UUID]:
    """Return those of the files that exist."""
    with translating_errors():
        cursor = database["audio_files"].find({"_id": {"$in": list(ids)}}, {"_id": 1})
        return {found["_id"] async for found in cursor}


def _ended_items(before: datetime) -> Pipeline:
    return [
        {
            "$lookup": {
                "from": "batch_jobs",
                "localField": "batch_id",
                "foreignField": "_id",
                "as": "job",
            }
        },
        {"$set": {"job": {"$first": "$job"}}},
        {"$match": {"job.state": {"$in": _ENDED}, "job.finished_at": {"$lt": before}}},
        {
            "$lookup": {
                "from": "audio_files",
                "localField": "audio_file_id",
                "foreignField": "_id",
                "as": "file",
            }
        },
        {
            "$project": {
                "at": "$job.finished_at",
                "owner": "$job.owner_id",
                "tags": {"$ifNull": [{"$first": "$file.tags"}, []]},
            }
        },
    ]


def _ended_jobs(before: datetime) -> Pipeline:
    return [
        {"$match": {"state": {"$in": _ENDED}, "finished_at": {"$lt": before}}},
        # A batch stays as long as any of its items does.
        {
            "$lookup": {
                "from": "batch_items",
                "localField": "_id",
                "foreignField": "batch_id",
                "pipeline": [{"$limit": 1}, {"$project": {"_id": 1}}],
                "as": "items",
            }
        },
        {"$match": {"items": []}},
        {"$project": {"at": "$finished_at", "owner": "$owner_id", "tags": []}},
    ]


def _with_file(before: datetime) -> Pipeline:
    return [
        {"$match": {"created_at": {"$lt": before}}},
        {"$project": {"audio_file_id": 1, "created_at": 1}},
        {
            "$lookup": {
                "from": "audio_files",
                "localField": "audio_file_id",
                "foreignField": "_id",
                "as": "file",
            }
        },
    ]


def _superseded(before: datetime) -> Pipeline:
    return [
        *_with_file(before),
        {"$match": {"file": {"$ne": []}}},
        {"$set": {"file": {"$first": "$file"}}},
        {"$match": {"$expr": {"$and": [
            {"$ne": ["$file.analysis_id", "$_id"]},
            {"$ne": [{"$ifNull": ["$file.analysis_id", None]}, None]},
        ]}}},
        {"$project": {"at": "$created_at", "owner": "$file.owner_id", "tags": "$file.tags"}},
    ]  # fmt: skip


def _orphaned(before: datetime) -> Pipeline:
    return [
        *_with_file(before),
        {"$match": {"file": []}},
        {
            "$project": {
                "at": "$created_at",
                "owner": None,
                "tags": [],
                "ownerless": {"$literal": True},
            }
        },
    ]


_SOURCES: Mapping[str, tuple[str, Callable[[datetime], Pipeline]]] = {
    "batch_items": ("batch_items", _ended_items),
    "batch_jobs": ("batch_jobs", _ended_jobs),
    "analysis_results": ("analysis_results", _superseded),
    "orphaned_results": ("analysis_results", _orphaned),
}
DOCUMENT_POLICIES = frozenset(_SOURCES)


def _group(found: Mapping[str, Any]) -> Group:
    key = found["_id"]
    return Group(
        oldest=found["oldest"],
        newest=found["newest"],
        rows=found["rows"],
        size_bytes=found["size_bytes"],
        owner=key.get("owner"),
        tags=frozenset(key.get("tags") or ()),
        ownerless=bool(key.get("none")),
    )


def _is_held(found: Mapping[str, Any], holds: Holds) -> bool:
    if found.get("ownerless"):
        return bool(holds)
    return found.get("owner") in holds.users or not holds.tags.isdisjoint(found.get("tags") or ())
