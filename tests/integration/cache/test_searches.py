import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import delete, update

from samplemind.cache.computed import ComputedCache, Policy
from samplemind.cache.invalidation import (
    INDEX,
    invalidating,
    owner_tag,
    settle_debts,
)
from samplemind.cache.popularity import Popularity
from samplemind.cache.redis_cache import RedisCache
from samplemind.cache.reports import database_report, public_collections, search_report
from samplemind.cache.searches import CachedSearch
from samplemind.cache.warming import warm
from samplemind.connections.resources import Connections
from samplemind.errors import CommitOutcomeUnknownError, InvalidInputError
from samplemind.ids import new_id
from samplemind.models.search_document import SearchDocument
from samplemind.models.user import User
from samplemind.repositories.collections import AudioCollectionRepository
from samplemind.repositories.users import UserRepository
from samplemind.search.filters import Filters, KeyMatch, Period, Range
from samplemind.search.fusion import Fusion
from samplemind.search.indexer import delete_files, drain, index_files
from samplemind.search.journal import record_changes
from samplemind.search.nearest import Metric
from samplemind.search.rebuild import rebuild_index
from samplemind.search.results import Results
from tests.library import add_file, change_vector, delete_file, unit_vector

ALL = Filters(everything=True)


@pytest.fixture
async def searches(connections: Connections) -> AsyncIterator[CachedSearch]:
    await connections.documents()
    async with CachedSearch(connections) as opened:
        yield opened


def _titles(found: Results) -> set[str]:
    return {hit.title for hit in found.results}


def _computed(connections: Connections) -> int:
    return connections.cached.cache.counts.total["computed"]


async def test_a_search_is_made_once_and_comes_back_whole(
    connections: Connections, searches: CachedSearch
) -> None:
    file = await add_file("/pack/dark_kick.wav", vector=unit_vector(1), tags=["dark"])
    await index_files(connections, [file.id])
    options: dict[str, Any] = {"filters": ALL, "limit": 5, "explain": True}
    first = await searches.search_audio_files("kick", **options)
    second = await searches.search_audio_files("kick", **options)
    assert _computed(connections) == 1
    assert first.results == second.results
    assert first.results[0].explanation
    assert (first.total, first.next_cursor) == (second.total, second.next_cursor)


async def test_no_result_is_stale_after_the_index_says_done(
    connections: Connections, searches: CachedSearch
) -> None:
    file = await add_file("/pack/kick.wav", title="old kick")
    await index_files(connections, [file.id])
    assert _titles(await searches.search_audio_files("kick", filters=ALL)) == {"old kick"}
    assert (await searches.facets("kick", filters=ALL)).counted == 1

    await file.set({"revision": 2, "title": "new kick"})
    other = await add_file("/pack/kick_2.wav", title="other kick")
    await index_files(connections, [file.id, other.id])
    found = await searches.search_audio_files("kick", filters=ALL)
    assert _titles(found) == {"new kick", "other kick"}
    assert (await searches.facets("kick", filters=ALL)).counted == 2

    await delete_file(other)
    await delete_files(connections, [other.id])
    assert _titles(await searches.search_audio_files("kick", filters=ALL)) == {"new kick"}


async def test_a_search_that_overlaps_a_write_is_not_served_after_it(
    connections: Connections, searches: CachedSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await add_file("/pack/kick.wav", title="old kick")
    await index_files(connections, [file.id])
    read, go_on = asyncio.Event(), asyncio.Event()
    compute = searches._compute

    async def slow(search: Any) -> Any:
        found = await compute(search)
        read.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(searches, "_compute", slow)
    searching = asyncio.create_task(searches.search_audio_files("kick", filters=ALL))
    await read.wait()
    await file.set({"revision": 2, "title": "new kick"})
    await index_files(connections, [file.id])
    go_on.set()
    assert _titles(await searching) == {"old kick"}
    assert _titles(await searches.search_audio_files("kick", filters=ALL)) == {"new kick"}


async def test_what_concerns_one_owner_leaves_the_others_cached(
    connections: Connections, searches: CachedSearch
) -> None:
    mine, theirs = new_id(), new_id()
    views = [Filters(everything=True, owner_id=each) for each in (mine, theirs)]
    for owner in (mine, theirs):
        file = await add_file("/pack/kick.wav", owner_id=owner)
        await index_files(connections, [file.id])
    for view in views:
        await searches.search_audio_files("kick", filters=view)
    await index_files(connections, [(await add_file("/pack/kick_2.wav", owner_id=mine)).id])
    before = _computed(connections)
    assert (await searches.search_audio_files("kick", filters=views[1])).total == 1
    assert _computed(connections) == before
    assert (await searches.search_audio_files("kick", filters=views[0])).total == 2


async def test_a_collection_that_changes_shows_at_once_and_only_to_who_may_see(
    connections: Connections, searches: CachedSearch
) -> None:
    async with connections.postgres.session() as session:
        owner = await UserRepository(session).add("ada@example.org")
        collection = await AudioCollectionRepository(session).add(owner.id, "mine")
    file = await add_file("/pack/kick.wav", owner_id=owner.id)
    await index_files(connections, [file.id])
    async with connections.postgres.session() as session:
        await AudioCollectionRepository(session).add_files(collection.id, [file.id])

    stranger, viewer = Filters(viewer_id=new_id()), Filters(viewer_id=owner.id)
    assert (await searches.search_audio_files("kick", filters=viewer)).total == 1
    assert (await searches.search_audio_files("kick", filters=stranger)).total == 0
    assert await public_collections(connections) == []

    async with connections.postgres.session() as session:
        (await AudioCollectionRepository(session).get(collection.id)).is_public = True
    assert (await searches.search_audio_files("kick", filters=stranger)).total == 1
    assert [each["file_count"] for each in await public_collections(connections)] == [1]

    async with connections.postgres.session() as session:
        await AudioCollectionRepository(session).remove_files(collection.id, [file.id])
    assert (await searches.search_audio_files("kick", filters=stranger)).total == 0


async def _publish(connections: Connections, owner_id: UUID, files: Sequence[UUID]) -> None:
    async with connections.postgres.session() as session:
        collections = AudioCollectionRepository(session)
        made = await collections.add(owner_id, "shown to all", is_public=True)
        await collections.add_files(made.id, files)


async def test_a_private_file_leaves_the_searches_of_those_who_cannot_see_it(
    connections: Connections, searches: CachedSearch
) -> None:
    uploader, other = new_id(), new_id()
    await index_files(connections, [(await add_file("/pack/kick.wav")).id])
    stranger, another = Filters(), Filters(viewer_id=other)
    own, operator = Filters(viewer_id=uploader), ALL
    for view in (stranger, another, own, operator):
        assert (await searches.search_audio_files("kick", filters=view)).total == 1

    await index_files(connections, [(await add_file("/my/kick.wav", owner_id=uploader)).id])

    before = _computed(connections)
    for view in (stranger, another):
        assert (await searches.search_audio_files("kick", filters=view)).total == 1
    assert _computed(connections) == before
    for view in (own, operator):
        assert (await searches.search_audio_files("kick", filters=view)).total == 2


async def test_a_published_file_that_changes_shows_to_everybody_at_once(
    connections: Connections, searches: CachedSearch
) -> None:
    async with connections.postgres.session() as session:
        owner = await UserRepository(session).add("ada@example.org")
    file = await add_file("/pack/kick.wav", owner_id=owner.id, title="old kick")
    await index_files(connections, [file.id])
    await _publish(connections, owner.id, [file.id])
    views = [Filters(), Filters(viewer_id=new_id()), Filters(owner_id=owner.id)]
    for view in views:
        assert _titles(await searches.search_audio_files("kick", filters=view)) == {"old kick"}
    await file.set({"revision": 2, "title": "new kick"})
    await index_files(connections, [file.id])
    for view in views:
        assert _titles(await searches.search_audio_files("kick", filters=view)) == {"new kick"}


async def test_a_file_that_is_published_while_it_is_indexed_is_not_stale_for_anybody(
    connections: Connections, searches: CachedSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connections.postgres.session() as session:
        owner = await UserRepository(session).add("ada@example.org")
    file = await add_file("/pack/kick.wav", owner_id=owner.id, title="old kick")
    await index_files(connections, [file.id])
    await file.set({"revision": 2, "title": "new kick"})

    async def publish_first(session: Any, ids: Any) -> None:
        await _publish(connections, owner.id, [file.id])
        assert _titles(await searches.search_audio_files("kick")) == {"old kick"}
        await record_changes(session, ids)

    monkeypatch.setattr("samplemind.search.indexer.record_changes", publish_first)
    await index_files(connections, [file.id])
    assert _titles(await searches.search_audio_files("kick")) == {"new kick"}


@pytest.mark.parametrize("at_once", [False, True])
async def test_an_account_that_is_deleted_takes_its_collections_out_of_sight_at_once(
    connections: Connections, searches: CachedSearch, at_once: bool
) -> None:
    async with connections.postgres.session() as session:
        owner = await UserRepository(session).add("ada@example.org")
    file = await add_file("/pack/kick.wav", owner_id=owner.id)
    await index_files(connections, [file.id])
    await _publish(connections, owner.id, [file.id])
    assert (await searches.search_audio_files("kick")).total == 1
    assert len(await public_collections(connections)) == 1

    async with connections.postgres.session() as session:
        if at_once:
            await session.execute(delete(User).where(User.id == owner.id))
        else:
            await session.delete(await UserRepository(session).get(owner.id))

    assert (await searches.search_audio_files("kick")).total == 0
    assert await public_collections(connections) == []


async def test_no_result_is_stale_after_the_index_was_made_anew(
    connections: Connections, searches: CachedSearch
) -> None:
    owner = new_id()
    file = await add_file("/pack/kick.wav", owner_id=owner, title="dark kick")
    await index_files(connections, [file.id])
    drifted = update(SearchDocument).values(title="wrong kick")
    async with connections.postgres.session() as session:
        await session.execute(drifted)
    views = [ALL, Filters(viewer_id=owner), Filters(owner_id=owner, viewer_id=owner)]
    for view in views:
        assert _titles(await searches.search_audio_files("kick", filters=view)) == {"wrong kick"}
    await rebuild_index(connections)
    for view in views:
        assert _titles(await searches.search_audio_files("kick", filters=view)) == {"dark kick"}


async def test_a_refused_search_is_told_and_not_cached(searches: CachedSearch) -> None:
    for _ in range(2):
        with pytest.raises(InvalidInputError):
            await searches.search_audio_files("", filters=ALL)


async def test_what_a_killed_writer_owed_is_paid_by_the_next_drain(
    connections: Connections,
) -> None:
    cached, broker = connections.cached, connections.broker
    writer = invalidating([INDEX], cached, broker)
    await writer.__aenter__()  # and is killed before it can go on
    await cached.cache.redis.set(cached.cache.keys.tag(INDEX), "before")
    await drain(connections)
    assert await cached.cache.redis.get(cached.cache.keys.tag(INDEX)) != b"before"


async def test_what_a_down_cache_missed_is_paid_when_it_is_back(
    connections: Connections, unused_url: SecretStr
) -> None:
    down = RedisCache(connections.settings.cache.model_copy(update={"url": unused_url}))
    lost = ComputedCache(down)
    broker = connections.broker
    async with invalidating([owner_tag(None)], lost, broker):
        pass
    assert await settle_debts(lost, broker) == 0
    assert await settle_debts(connections.cached, broker) == 1
    assert await settle_debts(connections.cached, broker) == 0
    await down.aclose()


async def test_only_a_commit_that_may_have_happened_invalidates(connections: Connections) -> None:
    cached, broker = connections.cached, connections.broker
    tag = cached.cache.keys.tag("t")
    with pytest.raises(ValueError):
        async with invalidating(["t"], cached, broker):
            raise ValueError
    assert not await cached.cache.redis.exists(tag)
    with pytest.raises(CommitOutcomeUnknownError):
        async with invalidating(["t"], cached, broker):
            raise CommitOutcomeUnknownError
    assert await cached.cache.redis.exists(tag)
    assert await settle_debts(cached, broker) == 0


async def test_popular_searches_are_warm_after_a_flush(
    connections: Connections, searches: CachedSearch
) -> None:
    file = await add_file("/pack/kick.wav", tempo_bpm=120.0)
    await index_files(connections, [file.id])
    narrow = Filters(
        viewer_id=new_id(),
        tempo_bpm=Range(100, None),
        key_match=KeyMatch.RELATIVE,
        created=Period(datetime(2020, 1, 1, tzinfo=UTC)),
    )
    for _ in range(3):
        await searches.search_audio_files("kick", filters=narrow)
    await searches.search_audio_files("snare", filters=ALL)
    await searches.popularity.flush()

    report = await warm(connections, within_s=60)
    assert (report.known, report.warmed, report.fresh, report.failed) == (2, 0, 2, 0)
    await connections.cached.cache.delete_pattern("*")
    assert (await warm(connections, within_s=60, top=1)).warmed == 1
    before = _computed(connections)
    assert (await searches.search_audio_files("kick", filters=narrow)).total == 1
    assert _computed(connections) == before
    assert not (await warm(connections, within_s=0)).in_time


async def _ask_all(searches: CachedSearch, file_id: UUID) -> list[object]:
    """Ask each kind of search once, with wishes where it takes any."""
    asking = (
        searches.search_audio_files("kick", owner=None, languages=["samplemind_simple"]),
        searches.fuzzy_search("kick", filters=ALL, limit=3),
        searches.similar_files([file_id], filters=ALL, metric=Metric.L2),
        searches.hybrid_files("kick", [file_id], fusion=Fusion.WEIGHTED, text_weight=0.7),
    )
    return [
        await searches.autocomplete("ki", filters=ALL),
        (await searches.facets("kick", filters=ALL)).counts,
        *[(await each).results for each in asking],
    ]


async def test_every_kind_of_search_is_warm_after_a_flush(
    connections: Connections, searches: CachedSearch
) -> None:
    files = [
        await add_file(f"/pack/kick_{seed}.wav", vector=unit_vector(seed), kind="loop")
        for seed in range(3)
    ]
    await index_files(connections, [file.id for file in files])
    asked = await _ask_all(searches, files[0].id)
    assert all(asked[1:])  # words to suggest are gathered later
    await searches.aclose()
    await connections.cached.cache.delete_pattern("*")

    report = await warm(connections, within_s=60)

    # Six questions, and what sounds like the file, as everybody sees it.
    assert (report.known, report.warmed, report.failed) == (7, 7, 0)
    before = _computed(connections)
    assert await _ask_all(searches, files[0].id) == asked
    assert (await searches.similar_files([files[0].id])).total == 2
    assert _computed(connections) == before


async def test_a_cache_that_forgot_even_what_was_popular_is_warmed_from_the_last_time(
    connections: Connections, searches: CachedSearch
) -> None:
    await index_files(connections, [(await add_file("/pack/kick.wav")).id])
    await searches.search_audio_files("kick", filters=ALL)
    await searches.aclose()
    assert (await warm(connections, within_s=60)).fresh == 1
    for _ in range(2):
        await connections.cache.flushall()
        assert (await warm(connections, within_s=60)).warmed == 1
    before = _computed(connections)
    assert (await searches.search_audio_files("kick", filters=ALL)).total == 1
    assert _computed(connections) == before
    await connections.broker.set("sm:cache:popular:searches", b"rubbish")
    await connections.cache.flushall()
    assert (await warm(connections, within_s=60)).known == 0


async def test_what_is_asked_after_a_flush_displaces_nothing_that_was_popular(
    connections: Connections, searches: CachedSearch
) -> None:
    files = [await add_file(f"/pack/{name}.wav") for name in ("kick", "snare", "hat")]
    await index_files(connections, [file.id for file in files])
    for words in ("kick", "snare"):
        await searches.search_audio_files(words, filters=ALL)
    await searches.aclose()
    assert (await warm(connections, within_s=60)).fresh == 2
    await connections.cache.flushall()
    await searches.search_audio_files("hat", filters=ALL)
    await searches.aclose()

    report = await warm(connections, within_s=60)

    assert (report.known, report.warmed, report.fresh) == (3, 2, 1)
    assert (await warm(connections, within_s=60)).fresh == 3


async def test_what_will_expire_before_the_next_warming_is_made_anew_while_it_serves(
    connections: Connections, searches: CachedSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await add_file("/pack/kick.wav")
    await index_files(connections, [file.id])
    with monkeypatch.context() as patch:
        patch.setattr("samplemind.cache.searches._POLICY", Policy(ttl=timedelta(minutes=3)))
        await searches.search_audio_files("kick", filters=ALL)
    await searches.aclose()

    assert (await warm(connections, within_s=60)).warmed == 1
    assert (await warm(connections, within_s=60)).fresh == 1
    assert connections.cached.cache.counts.total["misses"] == 1


async def test_a_file_that_not_everybody_sees_is_not_warmed_for_everybody(
    connections: Connections, searches: CachedSearch
) -> None:
    owner = new_id()
    file = await add_file("/pack/kick.wav", owner_id=owner, vector=unit_vector(1))
    await index_files(connections, [file.id])
    await searches.similar_files([file.id], filters=Filters(viewer_id=owner))
    await searches.aclose()
    report = await warm(connections, within_s=60)
    assert (report.known, report.fresh, report.failed) == (2, 1, 1)
    assert (await warm(connections, within_s=60)).known == 1


async def test_a_named_file_that_changes_changes_what_sounds_like_it_among_anothers(
    connections: Connections, searches: CachedSearch
) -> None:
    mine = new_id()
    named = await add_file("/pack/named.wav", vector=unit_vector(1))
    files = [
        await add_file(f"/pack/{seed}.wav", owner_id=mine, vector=unit_vector(seed))
        for seed in (2, 3)
    ]
    await index_files(connections, [named.id, *(file.id for file in files)])
    view = Filters(owner_id=mine, viewer_id=mine)
    for seed, file in zip((2, 3), files, strict=True):
        await change_vector(named, unit_vector(seed))
        await index_files(connections, [named.id])
        first = (await searches.similar_files([named.id], filters=view)).results[0]
        assert (first.id, first.score) == (file.id, pytest.approx(1, abs=1e-3))


async def test_popularity_is_bounded_and_keeps_what_is_asked_most(cache: ComputedCache) -> None:
    popularity = Popularity(cache.cache, "test", most=10)
    for number in range(50):
        for _ in range(3 if number < 5 else 1):
            popularity.count(b"%d" % number)
    popularity.count(b"x" * 10_000)
    await popularity.flush()
    top = await popularity.top(100)
    assert len(top) == 10
    assert set(top[:5]) == {b"%d" % number for number in range(5)}


async def test_popularity_fades(cache: ComputedCache) -> None:
    popularity = Popularity(cache.cache, "test")
    popularity.count(b"old")
    popularity.count(b"old")
    await popularity.flush()
    # As if that had been a long time ago.
    since = cache.cache.keys.of("pop", "test", "since")
    await cache.cache.redis.set(since, int(time.time() - timedelta(days=16).total_seconds()))
    popularity.count(b"new")
    await popularity.flush()
    assert (await popularity.top(2))[0] == b"new"


@pytest.mark.parametrize("report", [search_report, database_report])
async def test_a_report_is_made_once(connections: Connections, report: Any) -> None:
    first = await report(connections)
    assert first == await report(connections)
    assert _computed(connections) == 1
