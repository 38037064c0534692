"""The room of the cache: its figures, what is asked for most, clearing after counting."""

import time
from pathlib import Path

import pytest

from samplemind.connections.resources import Connections
from samplemind.repositories.audit import AuditLogRepository
from tests.console_stores import add_library, fill_cache
from tests.integration.console.conftest import ADA, Served, json_of, text_of
from worker.console.hits import Hits
from worker.console.rooms.cache import find_problems

YES = {"confirmed": "1"}
JSON = "application/json"


@pytest.fixture
async def filled(connections: Connections) -> Connections:
    await add_library(connections)
    await fill_cache(connections)
    return connections


async def test_the_page_shows_hits_prefixes_and_what_is_searched_for_most(
    served: Served, filled: Connections
) -> None:
    page = text_of(await served.by(ADA).get("/cache"))
    assert "2 hits, 2 misses" in page
    assert 'data-key="report"' in page
    assert 'data-key="search"' in page
    assert page.index("<th>kick</th>") < page.index("<th>loop</th>")
    assert 'data-key="hot-report:' in page


async def test_a_pattern_is_counted_before_it_is_cleared(
    served: Served, filled: Connections
) -> None:
    operator = served.by(ADA)
    counted = text_of(await operator.get("/cache?pattern=report:*"))
    assert "<strong>3</strong> values match" in counted
    assert await filled.cached.cache.count_pattern("report:*") == 3
    cleared = await operator.post("/cache/clear", {**YES, "pattern": "report:*"}, Accept=JSON)
    assert json_of(cleared)["deleted"] == 3
    assert await filled.cached.cache.count_pattern("report:*") == 0
    assert await filled.cached.cache.count_pattern("search:*") == 2
    async with filled.postgres.session() as session:
        (entry,) = await AuditLogRepository(session).of_action("console.clear_cache")
    assert (entry.details["pattern"], entry.details["deleted"]) == ("report:*", 3)
    assert (await operator.post("/cache/clear", YES, Accept=JSON)).code == 409


async def test_warming_is_sent_to_a_worker(served: Served, connections: Connections) -> None:
    assert (await served.by(ADA).post("/cache/warm", YES, Accept=JSON)).code == 200
    (message,) = await connections.broker.lrange("sm:default", 0, -1)
    assert b"cache.warm" in message


async def test_the_chart_tells_what_came_between_samples_and_survives_a_restart(
    connections: Connections, tmp_path: Path
) -> None:
    cache, path = connections.cached.cache, tmp_path / "hits.json"
    hits = Hits(path)
    now = time.time()
    hits.add(now - 20, await cache.get_stats(with_keys=False))
    await cache.set("report:1", 1)
    for key in ("report:1", "report:1", "report:1", "report:2"):
        await cache.get(key)
    hits.add(now - 10, await cache.get_stats(with_keys=False))
    hits.add(now, await cache.get_stats(with_keys=False))
    (series,) = hits.rates()["series"]
    assert series["values"] == [None, 75.0, 75.0]
    hits.save()
    assert Hits(path).rates() == hits.rates()


async def test_a_cache_that_is_away_is_the_one_thing_that_is_told(connections: Connections) -> None:
    stats = await connections.cached.cache.get_stats()
    (problem,) = find_problems(stats, is_open=True)
    assert problem.state == "danger"
    assert find_problems(stats, is_open=False) == []
