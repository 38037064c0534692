"""Full-text search against plain Python: what matches, in which order, page by page.

The oracle splits words with a pattern of its own and ranks by the published formulas of `ts_rank`
(PostgreSQL 16, src/backend/utils/adt/tsrank.c); no SQL tells it anything.
"""

import itertools
import math
import re
import statistics
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.resources import Connections
from samplemind.documents.audio_file import AudioFile
from samplemind.search.filters import Filters
from samplemind.search.full_text import FullTextSearch
from samplemind.search.results import Results
from samplemind.search.statistics import refresh_vocabulary
from samplemind.search.text_plan import TextBounds
from tests.corpus import WORDS, make_corpus, write_corpus

CORPUS = make_corpus(150, seed=6)
ALL = Filters(everything=True)
# Few matches are already too many to rank whole: every plan and every band is met.
NARROW = TextBounds(rank_up_to=5, band=4, least=2, walk=40)
WIDENED = TextBounds(rank_up_to=0, prove=6, band=12, least=2, walk=40)
WEIGHTS = {"A": 1.0, "B": 0.4, "C": 0.2, "D": 0.1}
FLOOR = 0.05  # of the quality's factor
TITLE_RANK = 6 / math.pi**2  # one word never ranks higher: in the title is in the title

Positions = dict[str, list[tuple[int, float]]]

reads_only = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
words = st.sampled_from(WORDS)


@dataclass(frozen=True, slots=True)
class Query:
    """Groups joined by `or`; in a group every word must be there, and none of `without`."""

    groups: tuple[tuple[str, ...], ...]
    without: tuple[str, ...] = ()

    @property
    def typed(self) -> str:
        unwanted = "".join(f" -{word}" for word in self.without)
        return " or ".join(" ".join(group) for group in self.groups) + unwanted


groups = st.lists(words, min_size=1, max_size=3, unique=True).map(tuple)
queries = st.one_of(
    st.builds(Query, groups.map(lambda group: (group,)), st.lists(words, max_size=1).map(tuple)),
    st.builds(Query, st.lists(groups, min_size=2, max_size=3).map(tuple)),
)


@pytest.fixture
async def session(connections: Connections) -> AsyncIterator[AsyncSession]:
    async with connections.postgres.session() as opened:
        await write_corpus(opened, CORPUS)
        await refresh_vocabulary(opened)
    async with connections.postgres.session() as opened:
        yield opened


@reads_only
@given(query=queries)
async def test_matches_and_their_order_are_those_of_the_formulas(
    session: AsyncSession, query: Query
) -> None:
    results = await FullTextSearch().search_audio_files(
        session, query.typed, filters=ALL, limit=200
    )

    expected = {file.id: score(file, query) for file in CORPUS.files if matches(file, query)}
    assert {hit.id for hit in results.results} == set(expected)
    assert results.total == len(expected)
    assert [hit.score for hit in results.results] == pytest.approx(
        [expected[hit.id] for hit in results.results], rel=1e-4, abs=2e-6
    )
    assert is_falling([expected[hit.id] for hit in results.results])


@reads_only
@given(query=queries, limit=st.integers(1, 7), bounds=st.sampled_from((NARROW, WIDENED)))
async def test_pages_hold_every_match_once_whatever_the_plan(
    session: AsyncSession, query: Query, limit: int, bounds: TextBounds
) -> None:
    search = FullTextSearch(bounds=bounds)
    seen: list[UUID] = []
    async for page in pages(session, search, query.typed, limit):
        assert len(page.results) <= limit
        seen += [hit.id for hit in page.results]

    assert len(seen) == len(set(seen))
    assert set(seen) == {file.id for file in CORPUS.files if matches(file, query)}


@reads_only
@given(query=queries, limit=st.integers(1, 2))
async def test_a_page_that_was_proven_early_is_that_of_all_matches(
    session: AsyncSession, query: Query, limit: int
) -> None:
    # A band of six; where that proves nothing, it is widened by everything else.
    bounds = TextBounds(rank_up_to=0, prove=6, band=10_000, least=1, walk=10_000)
    whole = await FullTextSearch().search_audio_files(session, query.typed, filters=ALL, limit=200)
    page = await FullTextSearch(bounds=bounds).search_audio_files(
        session, query.typed, filters=ALL, limit=limit
    )

    expected = [hit.score for hit in whole.results[:limit]]
    assert [hit.score for hit in page.results] == pytest.approx(expected, abs=2e-6)
    assert page.total <= whole.total


@reads_only
@given(
    query=queries, viewer=st.sampled_from((None, *CORPUS.owners)), kind=st.sampled_from(("loop",))
)
async def test_a_filter_leaves_the_order_of_what_passes(
    session: AsyncSession, query: Query, viewer: UUID | None, kind: str
) -> None:
    search = FullTextSearch()
    whole = await search.search_audio_files(session, query.typed, filters=ALL, limit=200)
    wanted = Filters(viewer_id=viewer, kind=kind)
    some = await search.search_audio_files(session, query.typed, filters=wanted, limit=200)

    passing = {f.id for f in CORPUS.files if f.kind == kind and CORPUS.visible(f, viewer)}
    assert [hit.id for hit in some.results] == [h.id for h in whole.results if h.id in passing]


@reads_only
@given(query=queries, further=words)
async def test_a_further_word_never_adds_a_file(
    session: AsyncSession, query: Query, further: str
) -> None:
    search = FullTextSearch()
    narrowed = replace(query, groups=tuple((*group, further) for group in query.groups))
    before = await search.search_audio_files(session, query.typed, filters=ALL, limit=200)
    after = await search.search_audio_files(session, narrowed.typed, filters=ALL, limit=200)

    assert {hit.id for hit in after.results} <= {hit.id for hit in before.results}


async def pages(
    session: AsyncSession, search: FullTextSearch, typed: str, limit: int
) -> AsyncIterator[Results]:
    cursor: str | None = None
    while True:
        page = await search.search_audio_files(
            session, typed, filters=ALL, limit=limit, cursor=cursor
        )
        yield page
        cursor = page.next_cursor
        if cursor is None:
            return


def is_falling(values: list[float]) -> bool:
    return all(one >= other - 1e-6 for one, other in itertools.pairwise(values))


def matches(file: AudioFile, query: Query) -> bool:
    present = positions(file)
    return any(set(group) <= set(present) for group in query.groups) and not any(
        word in present for word in query.without
    )


def score(file: AudioFile, query: Query) -> float:
    present = positions(file)
    ranks = [
        rank_together(present, group) if len(group) > 1 else rank_alone(present.get(group[0], []))
        for group in query.groups
    ]
    return statistics.fmean(ranks) * (FLOOR + (1 - FLOOR) * CORPUS.qualities[file.id])


def rank_alone(places: list[tuple[int, float]]) -> float:
    """`calc_rank_or` for one word: its best place, its others for less and less."""
    weights = [weight for _, weight in places]
    if not weights:
        return 0.0
    best = max(range(len(weights)), key=lambda place: (weights[place], -place))
    falling = sum(weight / (place + 1) ** 2 for place, weight in enumerate(weights))
    own = weights[best]
    rank = (own + falling - own / (best + 1) ** 2) / (math.pi**2 / 6)
    return min(rank, TITLE_RANK)


def rank_together(present: Positions, asked: tuple[str, ...]) -> float:
    """`calc_rank_and`: each pair of places of two words, for less the farther apart."""
    missed = 1.0
    for one, other in itertools.combinations(asked, 2):
        for (place, weight), (other_place, other_weight) in itertools.product(
            present.get(one, ()), present.get(other, ())
        ):
            distance = abs(place - other_place)
            if distance:
                near = 1 / (1.005 + 0.05 * math.exp(distance / 1.5 - 2)) if distance <= 100 else 0
                missed *= 1 - math.sqrt(weight * other_weight * near)
    return 1 - missed


def positions(file: AudioFile) -> Positions:
    """Word → its places and weights; each part follows on the last place of the part before."""
    found: Positions = {}
    offset = 0
    for weight, text in parts(file):
        last = offset
        for place, word in enumerate(split(text), offset + 1):
            found.setdefault(word, []).append((place, WEIGHTS[weight]))
            last = place
        offset = last
    return found


def parts(file: AudioFile) -> Iterator[tuple[str, str]]:
    spoken = [(file.kind or "").replace("_", " ")]
    spoken += [f"{round(file.tempo_bpm)} bpm"] if file.tempo_bpm else []
    spoken += [file.key or ""]
    yield "A", file.title
    yield "B", " ".join((*file.tags, *spoken))
    yield "C", f"{file.pack or ''} {file.artist or ''}"
    yield "D", f"{file.description or ''} {file.path}"


def split(text: str) -> list[str]:
    return re.findall(r"[a-z]+|[0-9]+", text.lower().replace("#", "sharp"))
