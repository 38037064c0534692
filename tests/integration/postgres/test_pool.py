import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.postgres import ConnectionPool
from samplemind.errors import (
    CommitOutcomeUnknownError,
    ConflictError,
    PoolTimeoutError,
    StoreUnavailableError,
    TransientError,
)
from samplemind.repositories.users import UserRepository

MakePool = Callable[..., ConnectionPool]
Until = Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]

_KILL_OWN_BACKEND = text("SELECT pg_terminate_backend(pg_backend_pid())")
_KILL = text("SELECT pg_terminate_backend(pid, 5000) FROM unnest(CAST(:pids AS int[])) AS pid")


async def _pid(session: AsyncSession) -> int:
    return int(await session.scalar(text("SELECT pg_backend_pid()")) or 0)


async def _kill(pool: ConnectionPool, *pids: int) -> None:
    """End server processes and wait until they are gone."""
    async with pool.session() as session:
        await session.execute(_KILL, {"pids": list(pids)})


async def _emails(pool: ConnectionPool) -> list[str]:
    async with pool.session() as session:
        return list(await session.scalars(text("SELECT email FROM users ORDER BY email")))


async def test_a_session_commits_at_the_end_and_rolls_back_on_an_error(
    pool: ConnectionPool,
) -> None:
    async with pool.session() as session:
        await UserRepository(session).get_or_create_owner("kept@example.org")

    async def stop_halfway() -> None:
        async with pool.session() as session:
            await UserRepository(session).get_or_create_owner("lost@example.org")
            raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"):
        await stop_halfway()
    assert await _emails(pool) == ["kept@example.org"]
    assert pool.stats().checked_out == 0


async def test_times_are_read_in_utc(pool: ConnectionPool) -> None:
    async with pool.session() as session:
        assert await session.scalar(text("SHOW timezone")) == "UTC"


async def test_idle_connections_that_the_server_closed_are_replaced_unseen(
    make_pool: MakePool, pool: ConnectionPool
) -> None:
    victim = make_pool(2, 0)
    async with victim.session() as first, victim.session() as second:
        pids = [await _pid(first), await _pid(second)]
    await _kill(pool, *pids)
    async with victim.session() as session:
        assert await _pid(session) not in pids


async def test_run_starts_again_when_the_connection_is_lost_halfway(pool: ConnectionPool) -> None:
    attempts: list[int] = []

    async def work(session: AsyncSession) -> str:
        attempts.append(await _pid(session))
        await UserRepository(session).get_or_create_owner("once@example.org")
        if len(attempts) < 3:
            await session.execute(_KILL_OWN_BACKEND)
        return "done"

    assert await pool.run(work) == "done"
    assert len(set(attempts)) == 3
    assert await _emails(pool) == ["once@example.org"]


async def test_run_gives_up_after_its_attempts(make_pool: MakePool) -> None:
    pool = make_pool(1, 0, retry_attempts=2)
    attempts = 0

    async def work(session: AsyncSession) -> None:
        nonlocal attempts
        attempts += 1
        await session.execute(_KILL_OWN_BACKEND)

    with pytest.raises(StoreUnavailableError, match="did not answer"):
        await pool.run(work)
    assert attempts == 2
    assert pool.stats().checked_out == 0


@pytest.mark.parametrize(("idempotent", "expected_attempts"), [(False, 1), (True, 2)])
async def test_run_repeats_a_commit_of_unknown_outcome_only_where_that_is_harmless(
    make_pool: MakePool, pool: ConnectionPool, idempotent: bool, expected_attempts: int
) -> None:
    victim = make_pool(1, 0)
    attempts = 0

    async def work(session: AsyncSession) -> None:
        nonlocal attempts
        attempts += 1
        await UserRepository(session).get_or_create_owner("maybe@example.org")
        if attempts == 1:
            await _kill(pool, await _pid(session))

    if idempotent:
        await victim.run(work, idempotent=True)
        assert await _emails(pool) == ["maybe@example.org"]
    else:
        with pytest.raises(CommitOutcomeUnknownError):
            await victim.run(work)
    assert attempts == expected_attempts


async def test_run_does_not_repeat_what_failed_for_another_reason(pool: ConnectionPool) -> None:
    attempts = 0

    async def work(session: AsyncSession) -> None:
        nonlocal attempts
        attempts += 1
        await UserRepository(session).add("twice@example.org")
        await UserRepository(session).add("TWICE@example.org")

    with pytest.raises(ConflictError):
        await pool.run(work)
    assert attempts == 1
    assert await _emails(pool) == []


async def test_a_full_pool_gives_up_in_time_and_counts_it(make_pool: MakePool) -> None:
    pool = make_pool(1, 1, pool_timeout_s=0.1)
    async with pool.session(), pool.session():
        assert (pool.stats().checked_out, pool.stats().overflow) == (2, 1)
        with pytest.raises(PoolTimeoutError, match="all 2 of the pool are taken"):
            async with pool.session():
                pytest.fail("a third connection was given")
    stats = pool.stats()
    assert (stats.waits, stats.timeouts, stats.checked_out, stats.overflow) == (1, 1, 0, 0)


async def test_a_waiting_caller_gets_the_connection_that_comes_free(
    make_pool: MakePool, until: Until
) -> None:
    pool = make_pool(1, 0, pool_timeout_s=10)

    async def ask() -> int:
        async with pool.session() as session:
            return await _pid(session)

    async def somebody_waits() -> bool:
        return pool.stats().waits > 0

    async with pool.session() as session:
        pid = await _pid(session)
        waiting = asyncio.create_task(ask())
        await until(somebody_waits)
    assert await waiting == pid
    assert (pool.stats().waits, pool.stats().timeouts) == (1, 0)


async def test_a_cancelled_statement_ends_on_the_server_and_frees_its_connection(
    make_pool: MakePool, pool: ConnectionPool, until: Until
) -> None:
    name = "samplemind-cancelled"
    victim = make_pool(1, 0, application_name=name)
    sleeping = text(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = :name "
        "AND state = 'active' AND wait_event = 'PgSleep'"
    )

    async def running() -> int:
        async with pool.session() as session:
            return int(await session.scalar(sleeping, {"name": name}) or 0)

    async def ended() -> bool:
        return not await running()

    async def sleep() -> None:
        async with victim.session() as session:
            await session.execute(text("SELECT pg_sleep(30)"))

    task = asyncio.create_task(sleep())
    await until(running)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert victim.stats().checked_out == 0
    await until(ended)
    async with victim.session() as session:
        assert await session.scalar(text("SELECT 1")) == 1


async def test_cancellation_at_any_moment_leaves_the_pool_whole(make_pool: MakePool) -> None:
    pool = make_pool(2, 1, pool_timeout_s=10)

    async def work(number: int) -> None:
        async with pool.session() as session:
            await UserRepository(session).get_or_create_owner(f"user{number}@example.org")
            await session.execute(text("SELECT pg_sleep(0.002)"))

    async def cancelled_after(number: int, delay_s: float) -> None:
        task = asyncio.create_task(work(number))
        await asyncio.wait([task], timeout=delay_s)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    # From before the checkout to after the commit, in steps smaller than a round trip.
    await asyncio.gather(*(cancelled_after(number, number * 0.0004) for number in range(120)))
    assert pool.stats().checked_out == 0
    async with (
        asyncio.timeout(5),
        pool.session() as one,
        pool.session() as two,
        pool.session() as three,
    ):
        pids = {await _pid(one), await _pid(two), await _pid(three)}
    assert len(pids) == 3


async def test_a_statement_that_runs_too_long_is_ended_and_can_be_tried_again(
    make_pool: MakePool,
) -> None:
    pool = make_pool(1, 0, statement_timeout_ms=50)
    with pytest.raises(TransientError, match="time limit"):
        async with pool.session() as session:
            await session.execute(text("SELECT pg_sleep(5)"))
    async with pool.session() as session:
        assert await session.scalar(text("SELECT 1")) == 1


async def test_health_names_the_server_or_what_is_wrong(
    pool: ConnectionPool, make_pool: MakePool
) -> None:
    health = await pool.health_check()
    assert health.healthy
    assert health.writable
    assert health.server_version is not None
    assert health.latency_ms is not None

    full = make_pool(1, 0, pool_timeout_s=0.1)
    async with full.session():
        health = await full.health_check()
    assert not health.healthy
    assert "no connection came free" in health.detail


async def test_an_exception_of_the_driver_never_reaches_the_caller_with_its_values(
    pool: ConnectionPool,
) -> None:
    async with pool.session() as session:
        await UserRepository(session).get_or_create_owner("private@example.org")
    with pytest.raises(ConflictError) as caught:
        async with pool.session() as session:
            await session.execute(
                text("INSERT INTO users (id, email) VALUES (gen_random_uuid(), :email)"),
                {"email": "Private@example.org"},
            )
    assert "uq_users_email_lower" in str(caught.value)
    assert "private" not in str(caught.value).lower()
