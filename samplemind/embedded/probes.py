"""Asking a store by its URL whether it is well, for `status` and `doctor`.

These go past the connection pools on purpose: they also answer where nothing else works, they are
over in seconds, and they need no event loop.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import psycopg
import redis
from pydantic import SecretStr
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from redis.backoff import NoBackoff
from redis.retry import Retry

from samplemind.endpoints import Store
from samplemind.errors import SettingsError, StoreUnavailableError
from samplemind.urls import libpq_url, read_address

TIMEOUT_S = 3

# What drivers say at length or each in their own way; what else they say is shown as it is.
_REASONS = (
    (re.compile(r"connection refused", re.IGNORECASE), "connection refused"),
    (
        re.compile(r"name or service not known|name resolution|nodename nor", re.IGNORECASE),
        "its host is unknown",
    ),
    (
        re.compile(r"timed out|timeout expired|timeout (connect|read)ing", re.IGNORECASE),
        f"nothing came in {TIMEOUT_S} s",
    ),
)
_APPENDIX = re.compile(r" \(configured timeouts.*|, Timeout: .*|, Topology Description: .*")


@dataclass(frozen=True)
class StoreReport:
    """What a store said of itself.

    Attributes:
        version: product and version.
        now: its clock, UTC.
        extensions: PostgreSQL: installable extension → version.
        replica_set: MongoDB: name of the set; none: it is not one.
        writable: MongoDB: whether this is a primary.
        eviction: Redis: its maxmemory-policy.
        run_id: Redis: the same for two URLs of one instance.
        used_bytes: Redis: what its data take.
        max_bytes: Redis: what they may take; 0: as much as the machine has.
        refusal: Redis: why it takes no writes although it answers; none: it takes them.
    """

    version: str
    now: datetime
    extensions: dict[str, str] | None = None
    replica_set: str | None = None
    writable: bool = True
    eviction: str | None = None
    run_id: str | None = None
    used_bytes: int = 0
    max_bytes: int = 0
    refusal: str | None = None


def ask(store: Store, url: SecretStr) -> StoreReport:
    """Return what the store says of itself.

    Raises:
        StoreUnavailableError: it did not answer within seconds, or refused the password.
    """
    try:
        # The drivers quote from what they cannot read, and that may be a part of the password.
        read_address(store, url)
    except SettingsError as error:
        raise StoreUnavailableError(str(error)) from None
    return _QUESTIONS[store](url.get_secret_value())


def address_of(store: Store, url: SecretStr) -> str:
    """Return host and port of a URL, without user and password."""
    try:
        return read_address(store, url)
    except SettingsError:
        return "an unreadable URL"


@contextmanager
def _reported(product: str, *errors: type[Exception]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        message = f"{product} does not answer: {readable(error)}"
        raise StoreUnavailableError(message) from error


def readable(error: Exception) -> str:
    """Return in a line why something did not answer, without a library's own words for it."""
    text = str(error).strip()
    for pattern, reason in _REASONS:
        if pattern.search(text):
            return reason
    # The first line only: some append what they were given.
    line = _APPENDIX.sub("", text.splitlines()[0]) if text else ""
    return line[:200] or type(error).__name__


def _ask_postgres(url: str) -> StoreReport:
    with (
        _reported("PostgreSQL", psycopg.Error),
        psycopg.connect(libpq_url(url), connect_timeout=TIMEOUT_S, autocommit=True) as connection,
    ):
        row = connection.execute(
            "SELECT current_setting('server_version'), clock_timestamp()"
        ).fetchone()
        extensions = connection.execute(
            "SELECT name, default_version FROM pg_available_extensions"
        ).fetchall()
    version, now = cast("tuple[str, datetime]", row)
    return StoreReport(
        f"PostgreSQL {version.split()[0]}", now.astimezone(UTC), extensions=dict(extensions)
    )


def _ask_mongo(url: str) -> StoreReport:
    timeout_ms = TIMEOUT_S * 1000
    with _reported("MongoDB", PyMongoError):
        client: MongoClient[dict[str, Any]] = MongoClient(
            url,
            serverSelectionTimeoutMS=timeout_ms,
            connectTimeoutMS=timeout_ms,
            socketTimeoutMS=timeout_ms,
        )
        with client:
            hello = client.admin.command("hello")
            version = client.server_info()["version"]
    return StoreReport(
        f"MongoDB {version}",
        hello["localTime"].replace(tzinfo=UTC),  # BSON dates are UTC, without saying so
        replica_set=hello.get("setName"),
        writable=bool(hello.get("isWritablePrimary")),
    )


def _ask_redis(url: str) -> StoreReport:
    with (
        _reported("Redis", redis.RedisError),
        redis.Redis.from_url(
            url,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        ) as client,
    ):
        about: dict[str, Any] = client.info()
        seconds, microseconds = cast("tuple[int, int]", client.time())
    if "valkey_version" in about:
        version = f"Valkey {about['valkey_version']}"
    else:
        version = f"Redis {about['redis_version']}"
    return StoreReport(
        version,
        datetime.fromtimestamp(seconds + microseconds / 1e6, UTC),
        eviction=about.get("maxmemory_policy"),
        run_id=about.get("run_id"),
        used_bytes=int(about.get("used_memory", 0)),
        max_bytes=int(about.get("maxmemory", 0)),
        refusal=refusal(about),
    )


def refusal(about: Mapping[str, Any]) -> str | None:
    """Return why a Redis that says this of itself takes no writes; none: it takes them."""
    if about.get("role") == "slave":
        return "takes no writes: it is a replica"
    if about.get("aof_enabled") and about.get("aof_last_write_status") == "err":
        return "takes no writes: its append-only file cannot be written; is its disk full?"
    used, most = int(about.get("used_memory", 0)), int(about.get("maxmemory", 0))
    if most and used > most and about.get("maxmemory_policy") == "noeviction":
        return "takes no writes: it has reached its maxmemory"
    return None


_QUESTIONS: dict[Store, Callable[[str], StoreReport]] = {
    Store.POSTGRES: _ask_postgres,
    Store.MONGO: _ask_mongo,
    Store.BROKER: _ask_redis,
    Store.CACHE: _ask_redis,
}
