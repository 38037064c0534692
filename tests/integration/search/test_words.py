from collections.abc import Awaitable, Sequence
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.resources import Connections
from samplemind.errors import InvalidInputError, TransientError
from samplemind.models.audio_collection import AudioCollection, AudioCollectionItem
from samplemind.models.user import User
from samplemind.search.filters import Filters
from samplemind.search.full_text import FullTextSearch
from samplemind.search.hybrid import HybridSearch
from samplemind.search.indexer import index_files
from samplemind.search.query_limits import limit_queries
from samplemind.search.sound import Sound
from samplemind.search.statistics import refresh_vocabulary
from samplemind.search.text_indexes import TEXT_INDEXES
from samplemind.search.text_plan import TextBounds
from samplemind.search.vector import VectorSearch
from tests.library import EMBEDDING_VERSION, add_file, unit_vector

EVERYTHING = Filters(everything=True)
# Few files are many already, so that the plans for common words are met.
WALKING = FullTextSearch(bounds=TextBounds(rank_up_to=0, band=7, least=2, walk=12))
GATHERING = FullTextSearch()


@pytest.fixture
async def names(connections: Connections) -> list[UUID]:
    """Files with common words in all combinations, and a vocabulary."""
    await connections.documents()
    files = [
        await add_file(
            f"/drums/{'kick' if n % 2 else 'snare'}_{'dark' if n % 3 else 'bright'}_{n}.wav",
            kind="loop" if n % 4 == 0 else "one_shot",
            tags=["drum", "punchy"] if n % 5 == 0 else ["drum"],
        )
        for n in range(40)
    ]
    await index_files(connections, [file.id for file in files])
    async with connections.postgres.session() as session:
        await refresh_vocabulary(session)
        await session.execute(text("ANALYZE search_texts, search_documents"))
    return [file.id for file in files]


async def all_by_cursor(
    search: FullTextSearch, session: AsyncSession, query: str, limit: int
) -> list[UUID]:
    found: list[UUID] = []
    cursor = None
    for _ in range(100):
        page = await search.search_audio_files(
            session, query, filters=EVERYTHING, limit=limit, cursor=cursor
        )
        found += [hit.id for hit in page.results]
        cursor = page.next_cursor
        if cursor is None:
            return found
    pytest.fail("the pages never end")


@pytest.mark.parametrize("query", ["drum", "kick or dark", "kick or dark or bright", "drum -kick"])
@pytest.mark.parametrize("limit", [1, 3, 7, 50])
async def test_pages_of_a_walk_hold_every_match_once(
    session: AsyncSession, names: list[UUID], query: str, limit: int
) -> None:
    expected = await all_by_cursor(GATHERING, session, query, 1000)

    walked = await all_by_cursor(WALKING, session, query, limit)

    assert len(walked) == len(set(walked))
    assert set(walked) == set(expected)


@pytest.mark.parametrize("query", ["drum", "kick or dark"])
async def test_offsets_page_a_walk_as_cursors_do(
    session: AsyncSession, names: list[UUID], query: str
) -> None:
    by_cursor = await all_by_cursor(WALKING, session, query, 5)

    by_offset: list[UUID] = []
    while page := (
        await WALKING.search_audio_files(
            session, query, filters=EVERYTHING, limit=5, offset=len(by_offset)
        )
    ).results:
        by_offset += [hit.id for hit in page]

    assert by_offset == by_cursor


async def test_a_total_that_was_not_counted_out_says_so(
    session: AsyncSession, names: list[UUID]
) -> None:
    whole = await GATHERING.search_audio_files(session, "drum", filters=EVERYTHING, limit=1)
    assert (whole.total, whole.total_is_exact) == (40, True)
    part = await WALKING.search_audio_files(session, "drum", filters=EVERYTHING, limit=1)
    assert part.total < 40
    assert not part.total_is_exact


async def test_a_cursor_of_another_query_or_of_nobody_is_refused(
    session: AsyncSession, names: list[UUID]
) -> None:
    page = await GATHERING.search_audio_files(session, "kick", filters=EVERYTHING, limit=2)
    for query, cursor in (
        ("snare", page.next_cursor),
        ("kick", "bm8="),
        ("kick", "é"),
        ("kick", ""),
    ):
        with pytest.raises(InvalidInputError, match="cursor"):
            await GATHERING.search_audio_files(session, query, filters=EVERYTHING, cursor=cursor)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("kcik", "kick"),
        ("snre", "snare"),
        ("brightt", "bright"),
        ("sark kick", "dark kick"),
        ("punhcy drmu", "punchy drum"),
        ('"dakr"', '"dark"'),
        ("brightxx", "bright"),
    ],
)
async def test_misspelt_words_are_corrected(
    session: AsyncSession, names: list[UUID], typed: str, meant: str
) -> None:
    results = await GATHERING.fuzzy_search(session, typed, filters=EVERYTHING)
    assert results.did_you_mean == meant
    assert results.results


async def test_words_that_find_something_are_never_corrected(
    session: AsyncSession, names: list[UUID], connections: Connections
) -> None:
    new = await add_file("/x/kicj.wav")  # not in the vocabulary yet
    await index_files(connections, [new.id])
    results = await GATHERING.fuzzy_search(session, "kicj", filters=EVERYTHING)
    assert results.did_you_mean is None
    assert [hit.id for hit in results.results] == [new.id]


async def test_prefixes_complete_to_words_and_names(
    session: AsyncSession, names: list[UUID]
) -> None:
    async def texts(prefix: str, limit: int = 10) -> Sequence[str]:
        found = await GATHERING.autocomplete(session, prefix, filters=EVERYTHING, limit=limit)
        return [suggestion.text for suggestion in found]

    assert (await texts("d"))[:2] == ["drum", "dark"]
    assert await texts("punch") == ["punchy"]
    assert (await texts("kick dar"))[0] == "kick dark"
    assert "kick dark 1" in await texts("Kick_dark_1")
    with pytest.raises(InvalidInputError):
        await texts("%_")
    with pytest.raises(InvalidInputError):
        await texts("d", limit=0)


async def test_nobody_is_told_of_a_private_file_of_another(
    session: AsyncSession, names: list[UUID], connections: Connections
) -> None:
    owner = User(email="owner@example.org")
    session.add(owner)
    await session.flush()
    secret = await add_file("/s/zanzibar_take.wav", owner_id=owner.id)
    await index_files(connections, [secret.id])
    await refresh_vocabulary(session)

    async def seen(filters: Filters) -> tuple[bool, bool, bool]:
        found = await GATHERING.search_audio_files(session, "zanzibar", filters=filters)
        fuzzy = await GATHERING.fuzzy_search(session, "zanzibra", filters=filters)
        suggested = await GATHERING.autocomplete(session, "zanz", filters=filters)
        return bool(found.results), fuzzy.did_you_mean is not None, bool(suggested)

    assert await seen(Filters()) == (False, False, False)
    assert await seen(Filters(viewer_id=uuid4())) == (False, False, False)
    assert await seen(Filters(viewer_id=owner.id)) == (True, True, True)
    assert await seen(Filters(viewer_id=uuid4(), owner_id=owner.id)) == (False, False, False)

    collection = AudioCollection(owner_id=owner.id, name="shared", is_public=True)
    session.add(collection)
    await session.flush()
    session.add(
        AudioCollectionItem(collection_id=collection.id, audio_file_id=secret.id, position=0)
    )
    await session.flush()
    assert await seen(Filters(viewer_id=uuid4())) == (True, True, True)


async def test_facets_count_all_matches_of_a_rare_word(
    session: AsyncSession, names: list[UUID]
) -> None:
    facets = await GATHERING.facets(session, "kick", filters=EVERYTHING)
    assert facets.is_exact
    assert facets.counted == 20
    assert facets.counts["kind"] == {"one_shot": 20}
    assert facets.counts["tag"] == {"drum": 20, "punchy": 4}
    none = await GATHERING.facets(session, "nothing", filters=EVERYTHING)
    assert (none.counted, none.counts) == (0, {})


async def test_scores_are_explained_by_their_parts(
    session: AsyncSession, names: list[UUID]
) -> None:
    found = await GATHERING.search_audio_files(session, "kick", filters=EVERYTHING, explain=True)
    for hit in found.results:
        assert hit.explanation is not None
        rank, quality = hit.explanation["rank"], hit.explanation["quality"]
        assert hit.score == pytest.approx(rank * (0.05 + 0.95 * quality), abs=1e-4)


async def test_missing_indexes_are_created_once(connections: Connections) -> None:
    async with connections.postgres.session() as session:
        await session.execute(text("DROP INDEX ix_search_texts_quality"))
    async with connections.postgres.session() as session:
        assert await GATHERING.create_search_indexes(session) == ["ix_search_texts_quality"]
    async with connections.postgres.session() as session:
        assert await GATHERING.create_search_indexes(session) == []
        present = set(await session.scalars(text("SELECT indexname FROM pg_indexes")))
    assert set(TEXT_INDEXES) <= present


async def test_a_time_limit_ends_a_query(session: AsyncSession) -> None:
    await limit_queries(session, timeout_ms=10)
    with pytest.raises(TransientError, match="time limit"):
        await session.execute(text("SELECT pg_sleep(5)"))


HOSTILE = st.text(max_size=60) | st.text("'\"\\;-%_()&|!<>:*$ orkic\x00", max_size=40)
UNHURRIED = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


async def asked(answer: Awaitable[object]) -> None:
    """Whatever was asked is answered, or refused in words."""
    try:
        await answer
    except InvalidInputError as error:
        assert str(error)  # noqa: PT017


@UNHURRIED
@given(query=HOSTILE)
async def test_no_text_becomes_sql(session: AsyncSession, names: list[UUID], query: str) -> None:
    sound = Sound(unit_vector(1), EMBEDDING_VERSION)
    for ask in (
        GATHERING.search_audio_files,
        GATHERING.fuzzy_search,
        GATHERING.autocomplete,
        GATHERING.facets,
    ):
        await asked(ask(session, query, filters=EVERYTHING))
    await asked(HybridSearch().hybrid_search(session, query, sound, filters=EVERYTHING))
    assert await session.scalar(text("SELECT count(*) FROM search_texts")) == 40


@UNHURRIED
@given(given=st.fixed_dictionaries(dict.fromkeys(("tag", "format", "version"), HOSTILE)))
async def test_no_filter_and_no_name_becomes_sql(
    session: AsyncSession, names: list[UUID], given: dict[str, str]
) -> None:
    filters, sound = EVERYTHING, Sound(unit_vector(1), EMBEDDING_VERSION)
    try:
        filters = Filters(everything=True, tags=(given["tag"],), formats=(given["format"],))
        sound = Sound(unit_vector(1), given["version"])
    except InvalidInputError as error:
        assert str(error)  # noqa: PT017
    await asked(GATHERING.search_audio_files(session, "kick", filters=filters))
    await asked(GATHERING.facets(session, "kick", filters=filters))
    await asked(VectorSearch().similarity_search(session, sound, filters=filters))
    await asked(VectorSearch().batch_similarity_search(session, [sound], filters=filters))
    assert await session.scalar(text("SELECT count(*) FROM search_texts")) == 40
