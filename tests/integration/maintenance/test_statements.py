import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from sqlalchemy import delete

from samplemind.cli.db import db
from samplemind.connections.resources import Connections
from samplemind.maintenance.session import Session
from samplemind.maintenance.statements import Trends, snapshot_statements, trends
from samplemind.models.statement_snapshot import StatementSnapshot

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
COUNTING_SINCE = NOW - timedelta(days=7)


@pytest.fixture(autouse=True)
async def _no_snapshots(connections: Connections) -> None:
    async with connections.postgres.session() as session:
        await session.execute(delete(StatementSnapshot))


async def keep(
    connections: Connections,
    hours_ago: int,
    since: datetime = COUNTING_SINCE,
    **sums: tuple[int, float],
) -> None:
    """Keep a snapshot: calls and milliseconds of each statement so far."""
    async with connections.postgres.session() as session:
        session.add_all(
            StatementSnapshot(
                taken_at=NOW - timedelta(hours=hours_ago),
                query_id=sum(query.encode()),
                counted_since=since,
                query=query,
                calls=calls,
                total_ms=total_ms,
                rows=0,
                blocks_read=0,
                blocks_hit=0,
                blocks_spilled=0,
            )
            for query, (calls, total_ms) in sums.items()
        )


async def trends_over(connections: Connections, **over: int) -> Trends:
    async with connections.postgres.session() as session:
        return await trends(session, over=timedelta(**over))


async def test_a_trend_is_the_difference_of_two_snapshots(connections: Connections) -> None:
    await keep(connections, 72, worse=(10, 10.0))
    await keep(connections, 24, worse=(100, 100.0), same=(100, 1000.0), idle=(5, 9000.0))
    await keep(connections, 12, worse=(110, 200.0), same=(110, 1100.0), idle=(5, 9000.0))
    await keep(
        connections, 0, worse=(200, 1100.0), same=(150, 1500.0), idle=(5, 9000.0), new=(1, 5.0)
    )
    found = await trends_over(connections, hours=24)
    assert found.first == NOW - timedelta(hours=24)
    assert found.last == NOW
    # What was not called in between, or not kept before, has no trend.
    assert [
        (each.query, each.calls, each.mean_ms, each.earlier_mean_ms, each.factor)
        for each in found.statements
    ] == [("worse", 100, 10.0, 1.0, 10.0), ("same", 50, 10.0, 10.0, 1.0)]
    assert (await trends_over(connections, hours=100)).first == NOW - timedelta(hours=72)


async def test_counters_that_started_anew_are_not_compared_with_older_ones(
    connections: Connections,
) -> None:
    anew = NOW - timedelta(hours=10)
    await keep(connections, 20, query=(1000, 9000.0))
    await keep(connections, 8, since=anew, query=(10, 10.0))
    assert (await trends_over(connections, hours=24)).statements == ()
    await keep(connections, 0, since=anew, query=(20, 40.0))
    found = await trends_over(connections, hours=24)
    assert found.first == NOW - timedelta(hours=8)
    assert [(each.calls, each.mean_ms) for each in found.statements] == [(10, 3.0)]


async def test_the_command_shows_what_became_slower(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samplemind.cli.session.get_settings", lambda: connections.settings)

    def invoke(*options: str) -> str:
        result = CliRunner().invoke(db, ["slow", *options], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    nothing = json.loads(await asyncio.to_thread(invoke, "--trend", "--json"))
    assert nothing == {"from": None, "to": None, "statements": []}
    await keep(connections, 20, query=(10, 10.0))
    await keep(connections, 0, query=(20, 40.0))
    shown = json.loads(await asyncio.to_thread(invoke, "--trend", "--json"))
    [statement] = shown["statements"]
    assert (statement["query"], statement["factor"]) == ("query", 3.0)
    assert shown["from"].startswith("2026-02-28 16:00")


async def test_snapshots_of_a_server_that_counts_show_its_statements(
    connections: Connections, session: Session
) -> None:
    for number in range(2):
        for _ in range(5 * (number + 1)):
            await session.execute("SELECT count(*) FROM pg_class AS counted_here, pg_class AS b")
        assert await snapshot_statements(connections) > 0
    found = await trends_over(connections, hours=1)
    [trend] = [each for each in found.statements if "counted_here" in each.query]
    assert trend.calls == 10
    assert trend.mean_ms > 0
