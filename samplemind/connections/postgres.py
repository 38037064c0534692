"""The pool of PostgreSQL connections: sessions, retried transactions, health and figures.

Invariant: whatever happens to a caller (an error, a time limit, a cancellation), its connection
goes back to the pool or is closed; none is lost. Only `session` and `run` commit. A pool belongs
to the event loop and the process that use it first, and must not be taken through a fork.

It never logs a parameter, and never repeats a transaction that may have been committed unless
the caller says that this does no harm.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar, cast

from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as CheckoutTimeoutError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import QueuePool
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from samplemind.connections.postgres_engine import connect_arguments, parse_database_url
from samplemind.connections.postgres_errors import translate_errors
from samplemind.connections.query_timing import QueryTimer
from samplemind.errors import (
    CommitOutcomeUnknownError,
    PoolTimeoutError,
    StoreUnavailableError,
    TransientError,
)
from samplemind.log import get_logger

T = TypeVar("T")

_HEALTH_TIMEOUT_S = 5.0
_RETRY_BASE_S = 0.1
_RETRY_MAX_S = 5.0

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PoolHealth:
    """What one round trip to the server found."""

    healthy: bool
    latency_ms: float | None
    server_version: str | None
    writable: bool
    detail: str


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Figures of a pool since it was opened.

    `size` is the number of connections kept, `idle` those of them that are open and free,
    `overflow` the ones open above `size`. `waits` counts checkouts that found every connection
    taken, `timeouts` those that gave up. The percentiles are over the last 2,048 statements.
    """

    size: int
    max_overflow: int
    checked_out: int
    idle: int
    overflow: int
    waits: int
    timeouts: int
    queries: int
    slow_queries: int
    p50_ms: float | None
    p95_ms: float | None


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """What of a pool's figures costs nothing to read; see `PoolStats`."""

    statements: int = 0
    slow_statements: int = 0
    waits: int = 0
    timeouts: int = 0
    in_use: int = 0
    idle: int = 0


AroundCommit = Callable[[AsyncSession], AbstractAsyncContextManager[None]]


class ConnectionPool:
    """An engine with its sessions; make one with `init_connection_pool`."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        max_overflow: int,
        slow_query_ms: int,
        retry_attempts: int,
    ) -> None:
        self._engine = engine
        self._max_overflow = max_overflow
        self._retry_attempts = retry_attempts
        self._waits = 0
        self._timeouts = 0
        self._timer = QueryTimer(slow_query_ms)
        self._timer.attach(engine.sync_engine)
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)
        # What must happen when a transaction commits, such as telling caches.
        self.around_commit: AroundCommit = lambda _session: nullcontext()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Open a session that commits at the end of the block and rolls back on an error.

        Raises:
            PoolTimeoutError: no connection came free within the pool's timeout.
            StoreUnavailableError: the server did not answer.
            CommitOutcomeUnknownError: the connection was lost while committing.
        """
        try:
            # The session's own exit rolls back and gives the connection back, shielded from a
            # cancellation that arrives meanwhile.
            async with self._sessions() as session:
                await self._check_out(session)
                yield session
                # What is still to be written is part of what `around_commit` looks at.
                await session.flush()
                async with self.around_commit(session):
                    await _commit(session)
        except CheckoutTimeoutError as error:
            self._timeouts += 1
            message = (
                f"no connection came free: all {self._capacity} of the pool are taken; "
                "raise SAMPLEMIND_POSTGRES_POOL_SIZE or shorten the transactions"
            )
            raise PoolTimeoutError(message) from error

    async def run(
        self, work: Callable[[AsyncSession], Awaitable[T]], *, idempotent: bool = False
    ) -> T:
        """Run `work` as one transaction, from the start again where the connection is lost.

        A connection that is lost before COMMIT was sent took its transaction with it, so the
        repetition is safe. One lost during COMMIT may have committed: that is repeated only
        where `idempotent` says that a second run changes nothing. Waits grow exponentially with
        full jitter, 0.1 s to 5 s. Nothing else is repeated here: a deadlock or a full pool goes
        to the caller, whose job is retried with more patience.

        Args:
            work: does everything through the session that it is given, does not commit, and has
                no effect elsewhere, because it may be called more than once.
            idempotent: doing the work twice leaves what doing it once leaves.

        Returns:
            What `work` returned.

        Raises:
            CommitOutcomeUnknownError: see above.
            StoreUnavailableError: the server did not come back within the attempts.
            PoolTimeoutError: no connection came free in time.
        """

        async def transaction() -> T:
            async with self.session() as session:
                return await work(session)

        def may_repeat(error: BaseException) -> bool:
            if isinstance(error, CommitOutcomeUnknownError):
                return idempotent
            return isinstance(error, StoreUnavailableError)

        retrying = AsyncRetrying(
            retry=retry_if_exception(may_repeat),
            stop=stop_after_attempt(self._retry_attempts),
            wait=wait_random_exponential(multiplier=_RETRY_BASE_S, max=_RETRY_MAX_S),
            before_sleep=_log_retry,
            reraise=True,
        )
        return await retrying(transaction)

    async def health_check(self) -> PoolHealth:
        """Ask the server for its version through the pool, within five seconds; never raises."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(_HEALTH_TIMEOUT_S), self.session() as session:
                row = (await session.execute(text(_HEALTH_QUERY))).one()
        except TimeoutError:
            return _unhealthy(f"no answer within {_HEALTH_TIMEOUT_S:.0f} s")
        except TransientError as error:
            return _unhealthy(str(error))
        return PoolHealth(
            healthy=True,
            latency_ms=(time.perf_counter() - started) * 1000,
            server_version=row.version,
            writable=not row.read_only,
            detail="read only: a standby" if row.read_only else "ok",
        )

    def stats(self) -> PoolStats:
        """Return the pool's figures; asks nothing of the server."""
        pool = self._pool
        return PoolStats(
            size=pool.size(),
            max_overflow=self._max_overflow,
            checked_out=pool.checkedout(),
            idle=pool.checkedin(),
            # SQLAlchemy counts from -size upwards while the kept connections are being opened.
            overflow=max(0, pool.overflow()),
            waits=self._waits,
            timeouts=self._timeouts,
            queries=self._timer.queries,
            slow_queries=self._timer.slow_queries,
            p50_ms=self._timer.percentile_ms(0.50),
            p95_ms=self._timer.percentile_ms(0.95),
        )

    def counts(self) -> PoolCounts:
        """Return the counters and the connections of this moment; asks nothing of the server."""
        return PoolCounts(
            statements=self._timer.queries,
            slow_statements=self._timer.slow_queries,
            waits=self._waits,
            timeouts=self._timeouts,
            in_use=self._pool.checkedout(),
            idle=self._pool.checkedin(),
        )

    async def aclose(self) -> None:
        """Close every connection; a session that is still open closes its own when it ends."""
        await self._engine.dispose()

    @property
    def _pool(self) -> QueuePool:
        return cast("QueuePool", self._engine.pool)

    @property
    def _capacity(self) -> int:
        return self._pool.size() + self._max_overflow

    async def _check_out(self, session: AsyncSession) -> None:
        # Taken at once and not at the first statement, so that a full pool shows before any
        # work was done, and so that waits can be counted.
        if self._pool.checkedout() >= self._capacity:
            self._waits += 1
        await session.connection()


_HEALTH_QUERY = (
    "SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS read_only"
)


def init_connection_pool(
    database_url: str | SecretStr,
    pool_size: int = 20,
    max_overflow: int = 40,
    *,
    pool_timeout_s: float = 30,
    pool_recycle_s: int = 3600,
    connect_timeout_s: int = 5,
    statement_timeout_ms: int = 60_000,
    slow_query_ms: int = 1000,
    retry_attempts: int = 8,
    application_name: str = "samplemind",
) -> ConnectionPool:
    """Make a pool; no connection is opened before the first is needed.

    Each connection is pinged before it is handed out, replaced after `pool_recycle_s`, and set
    to UTC, so that every time read is UTC-aware.

    Args:
        database_url: `postgresql://user:password@host:port/database`; a socket's directory goes
            in `?host=`.
        pool_size: connections kept open.
        max_overflow: connections above that, at a peak.
        pool_timeout_s: seconds to wait for a free one.
        pool_recycle_s: seconds after which one is replaced.
        connect_timeout_s: seconds for opening one.
        statement_timeout_ms: milliseconds after which the server ends a statement; 0: never.
        slow_query_ms: milliseconds from which a statement is logged as slow.
        retry_attempts: how often `run` starts a transaction at most.
        application_name: what `pg_stat_activity` shows.

    Raises:
        SettingsError: the URL cannot be read; the message does not repeat it.
    """
    engine = create_async_engine(
        parse_database_url(database_url),
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_timeout=pool_timeout_s,
        pool_recycle=pool_recycle_s,
        pool_pre_ping=True,
        # The connection used last is used next, so that a quiet pool lets the others grow old.
        pool_use_lifo=True,
        hide_parameters=True,
        connect_args=connect_arguments(connect_timeout_s, statement_timeout_ms, application_name),
    )
    translate_errors(engine.sync_engine)
    return ConnectionPool(
        engine,
        max_overflow=max_overflow,
        slow_query_ms=slow_query_ms,
        retry_attempts=retry_attempts,
    )


async def _commit(session: AsyncSession) -> None:
    # Flushed apart: a connection that is lost before COMMIT was sent cannot have committed.
    await session.flush()
    try:
        await session.commit()
    except StoreUnavailableError as error:
        message = "the connection to PostgreSQL was lost while committing: the outcome is unknown"
        raise CommitOutcomeUnknownError(message) from error


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    _log.warning(
        "postgres.transaction_retried",
        attempt=state.attempt_number,
        wait_s=round(state.upcoming_sleep, 3),
        reason=str(error),
    )


def _unhealthy(detail: str) -> PoolHealth:
    return PoolHealth(
        healthy=False, latency_ms=None, server_version=None, writable=False, detail=detail
    )
