"""The room of search: every kind of query with its scores and plans; the state of the index."""

import pytest

from samplemind.cache.searches import CachedSearch
from samplemind.connections.resources import Connections
from samplemind.errors import InvalidInputError, NotFoundError
from samplemind.jobs.client import Jobs
from samplemind.repositories.periodic_runs import RunOutcome
from samplemind.search.question import Search
from samplemind.search.trial import try_search
from tests.console_stores import add_library, add_run
from tests.integration.console.conftest import ADA, Served, json_of, text_of

YES = {"confirmed": "1"}
JSON = "application/json"


async def test_every_kind_of_search_tells_its_statements_and_their_plans(
    connections: Connections,
) -> None:
    ids = await add_library(connections)
    for kind, first in (
        (Search.WORDS, None),
        (Search.FUZZY, None),
        (Search.SIMILAR, ids["second"]),
        (Search.HYBRID, None),
    ):
        trial = await try_search(connections, kind, "dark kick", like=ids["kick"], with_plans=True)
        assert trial.results is not None
        assert trial.results.results, kind
        assert ids["loop"] not in {str(hit.id) for hit in trial.results.results[:1]}
        assert first is None or first in {str(hit.id) for hit in trial.results.results}
        assert trial.statements
        assert all(each.plan and each.plan.execution_ms is not None for each in trial.statements)
        assert not any("set_config" in each.sql.split("FROM")[0] for each in trial.statements)
    completed = await try_search(connections, Search.SUGGEST, "dar")
    assert completed.results is None
    assert [each.plan for each in completed.statements] == [None] * len(completed.statements)


async def test_a_trial_is_neither_cached_nor_counted(connections: Connections) -> None:
    await add_library(connections)
    await try_search(connections, Search.WORDS, "kick")
    assert await connections.cached.cache.count_pattern("*") == 0
    async with CachedSearch(connections) as searches:
        assert await searches.popular() == ()


@pytest.mark.parametrize(
    ("search", "query", "like", "kind"),
    [
        (Search.WORDS, "", "", InvalidInputError),
        (Search.SIMILAR, "", "", InvalidInputError),
        (Search.HYBRID, "kick", " ", InvalidInputError),
        (Search.FACETS, "kick", "", InvalidInputError),
        (Search.SIMILAR, "", "/no/such.wav", NotFoundError),
    ],
    ids=["no words", "no sound", "words alone", "not to be tried", "no such file"],
)
async def test_a_question_that_says_too_little_is_refused(
    connections: Connections, search: Search, query: str, like: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        await try_search(connections, search, query, like=like)


async def test_a_file_to_sound_like_is_found_by_its_path(connections: Connections) -> None:
    ids = await add_library(connections)
    by_id = await try_search(connections, Search.SIMILAR, like=ids["kick"])
    by_path = await try_search(connections, Search.SIMILAR, like="/a/Dark_Kick_03.wav")
    assert by_id.results is not None
    assert by_path.results is not None
    assert by_path.results.results == by_id.results.results != ()


async def test_the_page_shows_hits_scores_and_plans(
    served: Served, connections: Connections
) -> None:
    ids = await add_library(connections)
    operator = served.by(ADA)
    page = text_of(await operator.get("/search?q=dark+kick&plans=1&kind=one_shot"))
    assert "/a/Dark_Kick_03.wav" in page
    assert "House_Loop" not in page
    assert "quality 0." in page
    assert "EXPLAIN ANALYZE" in page
    assert f"like={ids['kick']}" in page
    narrowed = text_of(await operator.get("/search?q=loop&bpm=120..130"))
    assert "House_Loop.wav" in narrowed
    suggested = text_of(await operator.get("/search?kind_of_search=suggest&q=hou"))
    assert "Suggestion" in suggested or "Nothing begins like that" in suggested


async def test_what_cannot_be_read_is_told_beside_the_form(served: Served) -> None:
    operator = served.by(ADA)
    refused = text_of(await operator.get("/search?q=kick&bpm=fast"))
    assert "fast" in refused
    assert "not reachable" not in refused
    hostile = text_of(await operator.get("/search?q=%3Cscript%3Ealert(1)%3C/script%3E"))
    assert "<script>alert" not in hostile


async def test_drift_that_the_last_comparison_found_is_shown(
    served: Served, connections: Connections
) -> None:
    drift = {"compared": 900, "missing": 12, "stale": 0, "surplus": 1, "ahead": 0}
    await add_run(connections, "search.reconcile", RunOutcome.SUCCEEDED, figures=drift)
    page = text_of(await served.by(ADA).get("/search"))
    assert "12 missing, 1 surplus" in page
    assert "of 900, compared" in page


async def test_a_rebuild_is_sent_once_and_takes_a_reason(
    served: Served, connections: Connections
) -> None:
    operator = served.by(ADA)
    asked = text_of(await operator.post("/search/rebuild", {"next": "/search"}))
    assert "Reason, kept in the audit log" in asked
    fields = {**YES, "reason": "the words changed"}
    first = json_of(await operator.post("/search/rebuild", fields, Accept=JSON))
    second = json_of(await operator.post("/search/rebuild", fields, Accept=JSON))
    assert first["job_id"] == second["job_id"]
    async with Jobs(connections.settings) as jobs:
        assert (await jobs.status(first["job_id"])).task == "search.rebuild"
    for deed in ("reconcile", "fold"):
        assert (await operator.post(f"/search/{deed}", YES, Accept=JSON)).code == 200
