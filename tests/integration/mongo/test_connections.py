"""What a process's connections promise."""

import asyncio
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from bson.errors import InvalidDocument
from pydantic import SecretStr
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    OperationFailure,
    PyMongoError,
    WaitQueueTimeoutError,
    WTimeoutError,
)
from redis.exceptions import AuthenticationError, OutOfMemoryError, ReadOnlyError, ResponseError

from samplemind.connections import mongo, redis
from samplemind.connections.resources import Connections
from samplemind.documents import AudioFile
from samplemind.endpoints import Store
from samplemind.errors import (
    ConflictError,
    InvalidInputError,
    PermanentError,
    PoolTimeoutError,
    SettingsError,
    StackNotRunningError,
    StoreUnavailableError,
)
from samplemind.ids import new_id
from samplemind.settings import MongoSettings, Settings


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_ids_times_and_bytes_come_back_as_they_went(connections: Connections) -> None:
    documents = (await connections.documents())["scratch"]
    before = {"_id": new_id(), "at": datetime(2026, 1, 1, tzinfo=UTC), "raw": b"\x00\xff"}
    await documents.insert_one(before)
    assert await documents.find_one() == before


async def test_writes_wait_for_a_majority_and_the_journal(connections: Connections) -> None:
    concern = (await connections.documents()).write_concern.document
    assert (concern["w"], concern["j"]) == ("majority", True)
    assert concern["wtimeout"] > 0


async def test_models_follow_the_connections_that_asked_last(
    connections: Connections, migrated: Settings
) -> None:
    mine = await connections.documents()
    async with Connections(migrated) as others:
        theirs = await others.documents()
        assert AudioFile.get_pymongo_collection().database is theirs
    assert await connections.documents() is mine
    assert AudioFile.get_pymongo_collection().database is mine
    assert await AudioFile.count() == 0


async def test_many_callers_get_one_database(migrated: Settings) -> None:
    async with Connections(migrated) as opened:
        databases = await asyncio.gather(*(opened.documents() for _ in range(5)))
    assert all(database is databases[0] for database in databases)


async def test_both_redis_servers_answer_and_are_two(connections: Connections) -> None:
    await connections.broker.set("place", "broker")
    assert await connections.cache.get("place") is None
    assert await connections.broker.get("place") == b"broker"


async def test_closed_connections_refuse_to_work(migrated: Settings) -> None:
    opened = Connections(migrated)
    assert await opened.cache.ping()
    await opened.aclose()
    await opened.aclose()
    for use in (lambda: opened.postgres, lambda: opened.broker, lambda: opened.cache):
        with pytest.raises(RuntimeError, match="closed"):
            use()
    with pytest.raises(RuntimeError, match="closed"):
        await opened.documents()


async def test_another_process_may_neither_use_nor_close_them(
    migrated: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Connections(migrated)
    assert await opened.broker.ping()
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        with pytest.raises(RuntimeError, match="fork"):
            _ = opened.broker
        await opened.aclose()
    assert await opened.broker.ping()
    await opened.aclose()


async def test_a_store_without_address_is_named(migrated: Settings) -> None:
    stores = (Store.POSTGRES, Store.MONGO, Store.BROKER, Store.CACHE)
    nowhere = migrated.model_copy(
        update={
            store.value: getattr(migrated, store.value).model_copy(update={"url": None})
            for store in stores
        }
    )
    async with Connections(nowhere) as opened:
        with pytest.raises(StackNotRunningError, match="SAMPLEMIND_BROKER_URL"):
            _ = opened.broker
        with pytest.raises(StackNotRunningError, match="SAMPLEMIND_POSTGRES_URL"):
            _ = opened.postgres
        with pytest.raises(StackNotRunningError, match="SAMPLEMIND_MONGO_URL"):
            await opened.documents()


async def test_a_mongodb_that_is_away_is_told_within_the_time_set(migrated: Settings) -> None:
    away = migrated.with_urls({Store.MONGO: SecretStr(f"mongodb://127.0.0.1:{unused_port()}/")})
    soon = away.model_copy(update={"mongo": away.mongo.model_copy(update={"timeout_ms": 200})})
    async with Connections(soon) as opened:
        async with asyncio.timeout(5):
            with pytest.raises(StoreUnavailableError):
                await opened.documents()


async def test_a_redis_that_is_away_is_told_after_a_few_tries(migrated: Settings) -> None:
    url = SecretStr(f"redis://127.0.0.1:{unused_port()}/0")
    client = redis.connect_redis(url, max_connections=1, timeout_s=0.2)
    async with asyncio.timeout(10):
        with pytest.raises(StoreUnavailableError), redis.translating_errors():
            await client.ping()
    await client.aclose()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: mongo.connect_mongo(
                # As `with_urls` sets it, past the check of the environment's variables.
                MongoSettings().model_copy(update={"url": SecretStr("mongodb://me:secret@:x/?w=%")})
            ),
            "SAMPLEMIND_MONGO_URL",
        ),
        (
            lambda: redis.connect_redis(
                SecretStr("redis://:secret@host:port/0"), max_connections=1
            ),
            "redis://",
        ),
    ],
    ids=["mongo", "redis"],
)
def test_a_wrong_url_is_told_without_its_password(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        make()
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


DUPLICATE = {"index": 0, "code": 11000, "errmsg": "E11000"}
CASES: list[tuple[Exception, type[Exception]]] = [
    (AutoReconnect("lost"), StoreUnavailableError),
    (WaitQueueTimeoutError("none free"), PoolTimeoutError),
    (WTimeoutError("late", 64), StoreUnavailableError),
    (OperationFailure("stepping down", 189), StoreUnavailableError),
    (OperationFailure("no keys found yet", 211), StoreUnavailableError),
    (OperationFailure("unknown operator", 9), PermanentError),
    (OperationFailure("who are you", 18), PermanentError),
    (BulkWriteError({"writeErrors": [DUPLICATE], "writeConcernErrors": []}), ConflictError),
    (
        BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]}),
        StoreUnavailableError,
    ),
    (InvalidDocument("cannot encode object"), InvalidInputError),
    (PyMongoError("odd"), PermanentError),
]


@pytest.mark.parametrize(("error", "expected"), CASES, ids=[repr(case[0])[:40] for case in CASES])
def test_mongodb_errors_become_the_platforms(error: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught, mongo.translating_errors():
        raise error
    assert type(caught.value) is expected
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (AuthenticationError("wrong password"), PermanentError),
        (OutOfMemoryError("maxmemory"), StoreUnavailableError),
        (ReadOnlyError("replica"), StoreUnavailableError),
        (ResponseError("unknown command"), PermanentError),
    ],
)
def test_redis_errors_become_the_platforms(error: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught, redis.translating_errors():
        raise error
    assert type(caught.value) is expected


async def test_what_mongodb_cannot_hold_is_refused(connections: Connections) -> None:
    documents = (await connections.documents())["scratch"]
    with pytest.raises(InvalidInputError), mongo.translating_errors():
        await documents.insert_one({"size": 2**64})
    with pytest.raises(InvalidInputError), mongo.translating_errors():
        await documents.insert_one({"raw": bytes(17 * 2**20)})
