"""The explicit step that makes the indexes of the document collections."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from samplemind.connections.resources import Connections
from samplemind.documents.indexes import INDEXES, ensure_indexes
from samplemind.errors import ConflictError
from samplemind.ids import new_id

Database = AsyncDatabase[dict[str, Any]]


@pytest.fixture
async def database(connections: Connections) -> AsyncIterator[Database]:
    """An empty database beside the tests' own."""
    client = (await connections.documents()).client
    empty = client["samplemind_indexes"]
    yield empty
    await client.drop_database(empty.name)


async def index_names(database: Database) -> set[str]:
    return {
        f"{name}.{index}"
        for name in INDEXES
        for index in await database[name].index_information()
        if index != "_id_"
    }


async def test_the_first_run_makes_every_index_and_the_second_none(database: Database) -> None:
    wanted = {f"{name}.{index.name}" for name, all_ in INDEXES.items() for index in all_}
    assert set(await ensure_indexes(database)) == wanted
    assert await ensure_indexes(database) == []
    assert await index_names(database) == wanted


async def test_an_index_whose_definition_changed_is_replaced(database: Database) -> None:
    await database["batch_items"].create_index([("due_at", 1)], name="stalled_items")
    await database["audio_files"].create_index([("content_hash", 1)], name="an_older_name")
    made = await ensure_indexes(database)
    assert "batch_items.stalled_items" in made
    information = await database["batch_items"].index_information()
    assert "partialFilterExpression" in information["stalled_items"]
    assert "audio_files.an_older_name" not in await index_names(database)
    assert await ensure_indexes(database) == []


async def test_somebody_elses_index_stays(database: Database) -> None:
    await database["audio_files"].create_index([("artist", 1)], name="of_an_operator")
    await ensure_indexes(database)
    assert "audio_files.of_an_operator" in await index_names(database)


async def test_two_deployers_at_once_do_no_harm(database: Database) -> None:
    await asyncio.gather(*(ensure_indexes(database) for _ in range(3)))
    assert await ensure_indexes(database) == []


async def test_documents_that_break_a_unique_index_are_told(database: Database) -> None:
    await database["audio_files"].insert_many(
        [{"_id": number, "owner_id": None, "path": "/music/a.wav"} for number in range(2)]
    )
    with pytest.raises(ConflictError):
        await ensure_indexes(database)


NOW = datetime.now(UTC)
OPEN = {"$in": ["pending", "claimed"]}
QUERIES: list[tuple[str, str, dict[str, Any], list[tuple[str, int]]]] = [
    ("audio_files", "newest_files_of_owner", {"owner_id": None}, [("created_at", -1)]),
    ("audio_files", "copies_by_content", {"content_hash": "0" * 64}, []),
    (
        "analysis_results",
        "newest_results_of_file",
        {"audio_file_id": new_id(), "analysis_type": "features"},
        [("created_at", -1)],
    ),
    ("batch_jobs", "newest_batches", {}, [("created_at", -1)]),
    ("batch_jobs", "newest_batches_of_owner", {"owner_id": new_id()}, [("created_at", -1)]),
    ("batch_jobs", "batches_by_state", {"state": "running"}, [("created_at", -1)]),
    (
        "batch_items",
        "item_of_batch_by_seq",
        {"batch_id": new_id(), "seq": {"$gte": 0, "$lte": 31}, "claim": new_id()},
        [("seq", 1)],
    ),
    (
        "batch_items",
        "items_of_batch_by_state",
        {"batch_id": new_id(), "state": "failed"},
        [("seq", 1)],
    ),
    ("batch_items", "stalled_items", {"state": OPEN, "due_at": {"$lt": NOW}}, [("due_at", 1)]),
]


@pytest.mark.parametrize(
    ("collection", "index", "query", "order"), QUERIES, ids=[query[1] for query in QUERIES]
)
async def test_a_query_is_served_by_its_index_without_sorting(
    connections: Connections,
    collection: str,
    index: str,
    query: dict[str, Any],
    order: list[tuple[str, int]],
) -> None:
    documents = (await connections.documents())[collection]
    if collection == "batch_items":
        # With nothing to count, every index looks the same to the planner.
        await documents.insert_many(
            {"batch_id": query.get("batch_id"), "seq": seq, "state": "done"} for seq in range(200)
        )
    cursor = documents.find(query)
    plan = str((await (cursor.sort(order) if order else cursor).explain())["queryPlanner"])
    winning = plan.split("'rejectedPlans'")[0]
    assert f"'indexName': '{index}'" in winning
    assert "'stage': 'SORT'" not in winning


async def test_revisions_are_read_from_the_index_alone(connections: Connections) -> None:
    files = (await connections.documents())["audio_files"]
    cursor = files.find({}, {"revision": 1, "created_at": 1, "status": 1})
    plan = await cursor.sort("_id").hint("revisions_by_id").explain()
    assert "'stage': 'FETCH'" not in str(plan["queryPlanner"]["winningPlan"])
