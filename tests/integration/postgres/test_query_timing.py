from collections.abc import Callable, MutableMapping
from typing import Any

import pytest
from sqlalchemy import text

from samplemind.connections.postgres import ConnectionPool
from samplemind.errors import TransientError

MakePool = Callable[..., ConnectionPool]
LogEntries = list[MutableMapping[str, Any]]


def _slow(entries: LogEntries) -> LogEntries:
    return [entry for entry in entries if entry["event"] == "postgres.query_slow"]


async def test_a_slow_query_is_logged_with_its_statement_and_without_its_values(
    make_pool: MakePool, log_entries: LogEntries
) -> None:
    pool = make_pool(1, 0, slow_query_ms=40)
    async with pool.session() as session:
        await session.execute(
            text("SELECT pg_sleep(:seconds), :token, 'written in'"),
            {"seconds": 0.05, "token": "hunter2"},
        )
        await session.execute(text("SELECT 1"))
    (entry,) = _slow(log_entries)
    assert entry["statement"] == "SELECT pg_sleep(%(seconds)s), %(token)s, '…'"
    assert 40 <= entry["duration_ms"] < 5000
    assert "hunter2" not in repr(log_entries)
    assert "written in" not in repr(log_entries)


async def test_a_statement_that_ran_into_its_time_limit_counts_as_slow(
    make_pool: MakePool, log_entries: LogEntries
) -> None:
    pool = make_pool(1, 0, slow_query_ms=40, statement_timeout_ms=50)
    with pytest.raises(TransientError):
        async with pool.session() as session:
            await session.execute(text("SELECT pg_sleep(5)"))
    assert len(_slow(log_entries)) == 1
    assert pool.stats().slow_queries == 1


async def test_stats_count_statements_and_give_their_percentiles(make_pool: MakePool) -> None:
    pool = make_pool(1, 0, slow_query_ms=40)
    assert (pool.stats().queries, pool.stats().p50_ms, pool.stats().p95_ms) == (0, None, None)
    async with pool.session() as session:
        for _ in range(9):
            await session.execute(text("SELECT 1"))
        await session.execute(text("SELECT pg_sleep(0.05)"))
    stats = pool.stats()
    assert (stats.queries, stats.slow_queries) == (10, 1)
    assert stats.p50_ms is not None
    assert stats.p95_ms is not None
    assert 0 < stats.p50_ms < 40 <= stats.p95_ms
