"""The connections that one process holds for life: PostgreSQL, MongoDB and both Redis servers.

Invariant: each is opened at its first use and all are closed in reverse order. They belong to the
process and the event loop that made them: a forked child makes its own, and using the parent's
stops it at once rather than mixing two processes' bytes on one socket.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from types import TracebackType
from typing import Self

from beanie import init_beanie
from beanie.exceptions import CollectionWasNotInitialized
from pydantic import SecretStr
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.cache.computed import ComputedCache
from samplemind.cache.invalidation import (
    PUBLISHED,
    any_published,
    invalidating,
    noted,
    noted_unpublished,
)
from samplemind.cache.redis_cache import RedisCache
from samplemind.connections.mongo import Fields, connect_mongo, translating_errors
from samplemind.connections.postgres import ConnectionPool, PoolCounts, init_connection_pool
from samplemind.connections.redis import connect_redis
from samplemind.documents import DOCUMENTS
from samplemind.endpoints import Store
from samplemind.errors import StackNotRunningError, TransientError
from samplemind.log import get_logger
from samplemind.settings import PREFIX, Settings

# A worker process runs one job at a time; a service answers many requests at once.
_WORKER_REDIS_CONNECTIONS = 5
_SERVICE_REDIS_CONNECTIONS = 50

_log = get_logger(__name__)


class Connections:
    """What the data layer talks through; make one a process, and close it in the same loop."""

    def __init__(self, settings: Settings, *, worker: bool = False) -> None:
        """Open nothing yet.

        Args:
            settings: with the URL of each store that will be used.
            worker: this is a worker process, which gets the small pools.
        """
        self.settings = settings
        self._worker = worker
        self._pid = os.getpid()
        self._closed = False
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._postgres: ConnectionPool | None = None
        self._mongo: AsyncMongoClient[Fields] | None = None
        self._database: AsyncDatabase[Fields] | None = None
        self._database_lock = asyncio.Lock()
        self._broker: Redis | None = None
        self._cache: Redis | None = None
        self._cached: ComputedCache | None = None

    @property
    def postgres(self) -> ConnectionPool:
        """The pool of PostgreSQL sessions."""
        self._check_usable()
        if self._postgres is None:
            self._postgres = self._make_pool()
            self._closers.append(self._postgres.aclose)
        return self._postgres

    def pool_counts(self) -> PoolCounts | None:
        """Return what the pool has counted so far; none where it was not opened."""
        return None if self._postgres is None else self._postgres.counts()

    async def documents(self) -> AsyncDatabase[Fields]:
        """Return the document database, with every document model bound to it.

        Beanie binds a model to one database for the whole process. Where a process has two
        `Connections`, the models follow the one that was asked last, so each unit of work asks.

        Raises:
            StoreUnavailableError: MongoDB did not answer.
        """
        self._check_usable()
        async with self._database_lock:
            if self._database is None:
                self._database = self._mongo_client()[self.settings.mongo.database]
            if not _are_bound_to(self._database):
                with translating_errors():
                    # Indexes are made by `ensure_indexes`, once a release, not at every start.
                    await init_beanie(self._database, document_models=DOCUMENTS, skip_indexes=True)
        return self._database

    @property
    def broker(self) -> Redis:
        """The Redis that holds queues, leases and the ids to index."""
        self._check_usable()
        if self._broker is None:
            self._broker = self._make_redis(Store.BROKER)
        return self._broker

    @property
    def cache(self) -> Redis:
        """The Redis that may forget."""
        self._check_usable()
        if self._cache is None:
            self._cache = self._make_redis(Store.CACHE)
        return self._cache

    @property
    def cached(self) -> ComputedCache:
        """The values that are computed where the cache has none; outlives a cache that is down."""
        self._check_usable()
        if self._cached is None:
            redis_cache = RedisCache(self.settings.cache, with_local_layer=not self._worker)
            self._cached = ComputedCache(redis_cache)
            self._closers += [redis_cache.aclose, self._cached.aclose]
        return self._cached

    async def aclose(self) -> None:
        """Close what was opened, last first; doing it twice is harmless."""
        if os.getpid() != self._pid:
            return  # the sockets are the parent's
        self._closed = True
        while self._closers:
            await self._closers.pop()()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _make_pool(self) -> ConnectionPool:
        postgres = self.settings.postgres
        worker = self._worker
        pool = init_connection_pool(
            self._url(Store.POSTGRES),
            postgres.worker_pool_size if worker else postgres.pool_size,
            postgres.worker_max_overflow if worker else postgres.max_overflow,
            pool_timeout_s=postgres.pool_timeout_s,
            pool_recycle_s=postgres.pool_recycle_s,
            connect_timeout_s=postgres.connect_timeout_s,
            statement_timeout_ms=postgres.statement_timeout_ms,
            slow_query_ms=postgres.slow_query_ms,
            application_name="samplemind-worker" if worker else "samplemind",
        )
        pool.around_commit = self._around_commit
        return pool

    def _around_commit(self, session: AsyncSession) -> AbstractAsyncContextManager[None]:
        tags, files = noted(session), noted_unpublished(session)
        if not tags or self.settings.cache.url is None or self.settings.broker.url is None:
            return nullcontext()
        if PUBLISHED in tags or not files:
            return invalidating(tags, self.cached, self.broker)

        async def spare() -> frozenset[str]:
            # A collection may have been published meanwhile, by somebody whose own invalidation
            # came before this commit: only what is seen after it counts.
            try:
                async with self.postgres.session() as after:
                    published = await any_published(after, files)
            except TransientError as error:
                _log.info("cache.not_spared", error=type(error).__name__)
                return frozenset()
            return frozenset() if published else frozenset((PUBLISHED,))

        return invalidating({*tags, PUBLISHED}, self.cached, self.broker, spare=spare)

    def _mongo_client(self) -> AsyncMongoClient[Fields]:
        if self._mongo is None:
            self._mongo = connect_mongo(self.settings.mongo)
            self._closers.append(self._mongo.close)
        return self._mongo

    def _make_redis(self, store: Store) -> Redis:
        limit = _WORKER_REDIS_CONNECTIONS if self._worker else _SERVICE_REDIS_CONNECTIONS
        client = connect_redis(self._url(store), max_connections=limit)
        self._closers.append(client.aclose)
        return client

    def _url(self, store: Store) -> SecretStr:
        url = self.settings.url(store)
        if url is None:
            message = (
                f"no address for {store.value}: start the embedded stack with `samplemind up`, "
                f"or set {PREFIX}{store.value.upper()}_URL"
            )
            raise StackNotRunningError(message)
        return url

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            message = f"these connections belong to process {self._pid}: make new ones after a fork"
            raise RuntimeError(message)
        if self._closed:
            message = "these connections are closed"
            raise RuntimeError(message)


def _are_bound_to(database: AsyncDatabase[Fields]) -> bool:
    try:
        return all(model.get_pymongo_collection().database is database for model in DOCUMENTS)
    except CollectionWasNotInitialized:
        return False
