"""The indexes of the document collections, each named for the query that it serves.

Invariant: `INDEXES` is the whole truth about indexes of ours. They are made by an explicit step
beside the migrations, never at a start, because building one on a large collection takes minutes.
"""

from dataclasses import dataclass
from typing import Any

import pymongo
from pymongo import ASCENDING, DESCENDING
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure

from samplemind.connections.mongo import Fields, translating_errors
from samplemind.documents.analysis_result import AnalysisResult
from samplemind.documents.audio_file import AudioFile
from samplemind.documents.batch_item import OPEN_STATES, BatchItem
from samplemind.documents.batch_job import BatchJob

# A build on millions of documents takes longer than any other statement may.
_BUILD_TIMEOUT_S = 3600
_INDEX_NOT_FOUND = 27
# What MongoDB adds by itself, which no definition of ours sets.
_SERVER_FIELDS = frozenset({"v", "ns", "background"})


@dataclass(frozen=True, slots=True)
class Index:
    """One index: its name says which query it serves.

    Attributes:
        keys: fields with their direction, 1 or -1.
        unique: no two documents may agree in all keys.
        only: the index holds only documents that match this filter.
    """

    name: str
    keys: tuple[tuple[str, int], ...]
    unique: bool = False
    only: Fields | None = None

    def definition(self) -> Fields:
        """Return what MongoDB reports of such an index."""
        definition: Fields = {"key": list(self.keys)}
        if self.unique:
            definition["unique"] = True
        if self.only is not None:
            definition["partialFilterExpression"] = self.only
        return definition


INDEXES: dict[str, tuple[Index, ...]] = {
    AudioFile.Settings.name: (
        Index("file_of_owner_and_path", (("owner_id", ASCENDING), ("path", ASCENDING)), True),
        Index("newest_files_of_owner", (("owner_id", ASCENDING), ("created_at", DESCENDING))),
        Index("copies_by_content", (("content_hash", ASCENDING),)),
        # The reconciliation walks ids and versions of what can be searched; with all of it in the
        # index it reads no document.
        Index(
            "revisions_by_id",
            (
                ("_id", ASCENDING),
                ("revision", ASCENDING),
                ("created_at", ASCENDING),
                ("status", ASCENDING),
            ),
        ),
    ),
    AnalysisResult.Settings.name: (
        Index(
            "newest_results_of_file",
            (
                ("audio_file_id", ASCENDING),
                ("analysis_type", ASCENDING),
                ("created_at", DESCENDING),
            ),
        ),
    ),
    BatchJob.Settings.name: (
        Index("newest_batches", (("created_at", DESCENDING),)),
        Index("newest_batches_of_owner", (("owner_id", ASCENDING), ("created_at", DESCENDING))),
        Index("batches_by_state", (("state", ASCENDING), ("created_at", DESCENDING))),
    ),
    BatchItem.Settings.name: (
        Index("item_of_batch_by_seq", (("batch_id", ASCENDING), ("seq", ASCENDING)), True),
        Index(
            "items_of_batch_by_state",
            (("batch_id", ASCENDING), ("state", ASCENDING), ("seq", ASCENDING)),
        ),
        # What is handed out of a batch, and what comes next, without a look at all that waits.
        Index(
            "open_items_of_batch",
            (("batch_id", ASCENDING), ("due_at", ASCENDING), ("seq", ASCENDING)),
            only={"state": {"$in": [str(state) for state in OPEN_STATES]}},
        ),
        Index(
            "stalled_items",
            (("due_at", ASCENDING),),
            only={"state": {"$in": [str(state) for state in OPEN_STATES]}},
        ),
    ),
}


async def ensure_indexes(database: AsyncDatabase[Fields]) -> list[str]:
    """Make every index that is missing and make anew each whose definition changed.

    Repeating it is harmless, and so are two callers at once. Indexes that are not ours stay.

    Returns:
        "collection.index" of each that was made, in order.

    Raises:
        ConflictError: documents that are there already break a unique index.
        StoreUnavailableError: MongoDB did not answer; running it again goes on.
    """
    made: list[str] = []
    with translating_errors(), pymongo.timeout(_BUILD_TIMEOUT_S):
        for name, indexes in INDEXES.items():
            made += await _ensure(database[name], indexes)
    return made


async def missing_indexes(database: AsyncDatabase[Fields]) -> list[str]:
    """Return "collection.index" of each that is missing or has another definition; make none.

    Raises:
        StoreUnavailableError: MongoDB did not answer.
    """
    missing: list[str] = []
    with translating_errors():
        for name, indexes in INDEXES.items():
            present = await _present(database[name])
            missing += [
                f"{name}.{index.name}"
                for index in indexes
                if present.get(index.name) != index.definition()
            ]
    return missing


async def _present(collection: AsyncCollection[Fields]) -> dict[str, Fields]:
    return {
        name: {field: value for field, value in info.items() if field not in _SERVER_FIELDS}
        for name, info in (await collection.index_information()).items()
    }


async def _ensure(collection: AsyncCollection[Fields], indexes: tuple[Index, ...]) -> list[str]:
    present = await _present(collection)
    made = []
    for index in indexes:
        if present.get(index.name) == index.definition():
            continue
        for name in _in_the_way(index, present):
            await _drop(collection, name)
        await collection.create_index(list(index.keys), name=index.name, **_options(index))
        made.append(f"{collection.name}.{index.name}")
    return made


def _in_the_way(index: Index, present: dict[str, Fields]) -> list[str]:
    """Return the names of indexes that MongoDB would not let this one stand beside."""
    definition = index.definition()
    return [name for name, other in present.items() if name == index.name or other == definition]


def _options(index: Index) -> dict[str, Any]:
    return {field: value for field, value in index.definition().items() if field != "key"}


async def _drop(collection: AsyncCollection[Fields], name: str) -> None:
    try:
        await collection.drop_index(name)
    except OperationFailure as error:
        if error.code != _INDEX_NOT_FOUND:  # another caller dropped it first
            raise
