"""Search by words: each class of query, typing errors, prefixes and facets."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.row import Row, row
from benchmarks.search.bench import Bench
from benchmarks.search.figures import Peer, share_row
from benchmarks.search.measure import time_peer
from benchmarks.search.peers import TantivyPeer
from benchmarks.search.questions import Questions, Typo
from samplemind.search.filters import Filters
from samplemind.search.full_text import FullTextSearch
from samplemind.search.text import split_words
from samplemind.search.text_plan import TextBounds

_GOALS_MS = {"rare": 2, "medium": 15, "common": 6, "several words": 20, "OR": 15}
_GOAL_FUZZY_MS, _GOAL_PREFIX_MS, _GOAL_FACETS_MS = 5, 1, 60
_SAME_BEST, _RIGHT_WORD = 0.95, 0.9
_WITHIN = 3.0  # times tantivy's time
_LIMIT = 20
_MOST_RANKED_WHOLE = 50  # questions whose every match is ranked, for the truth

_EVERYTHING = Filters(everything=True)


async def word_rows(bench: Bench, questions: Questions) -> list[Row]:
    """Return the rows of all text queries, tantivy beside the exact ones."""
    search = FullTextSearch(bench.settings)
    peer = TantivyPeer(bench.library)
    rows: list[Row] = []
    for name, queries in questions.text.items():
        rows += await _class_rows(bench, search, peer, name, queries)
    for name, typos in questions.typos.items():
        rows += await _typo_rows(bench, search, name, typos)
    return [*rows, *await _other_rows(bench, search, questions)]


async def _class_rows(
    bench: Bench, search: FullTextSearch, peer: TantivyPeer, name: str, queries: Sequence[str]
) -> list[Row]:
    async def ask(session: AsyncSession, query: str) -> list[float]:
        results = await search.search_audio_files(session, query, filters=_EVERYTHING, limit=_LIMIT)
        return [hit.score for hit in results.results]

    tantivy = time_peer(peer.search, queries)
    rows = await bench.latency(
        f"text, {name}",
        ask,
        queries,
        goal_ms=_GOALS_MS[name],
        peer=Peer("tantivy", tantivy.p95, _WITHIN),
    )
    shares = []
    for query in queries[:_MOST_RANKED_WHOLE]:
        found = await bench.asking(ask)(query)
        async with bench.pool.session() as session:
            shares.append(_share_of_best(found, await _best(bench, session, query)))
    return [
        *rows,
        share_row(
            f"text, {name}, same best {_LIMIT} as of all, {bench.size}",
            float(np.mean(shares)),
            _SAME_BEST,
        ),
    ]


async def _best(bench: Bench, session: AsyncSession, query: str) -> list[float]:
    # The plan that ranks every match, so that one that misses the best is seen.
    settings = bench.settings.model_copy(update={"statement_timeout_ms": 60_000})
    whole = FullTextSearch(settings, bounds=TextBounds(rank_up_to=10**9))
    results = await whole.search_audio_files(
        session, query, filters=_EVERYTHING, limit=_LIMIT, highlights=False
    )
    return [hit.score for hit in results.results]


def _share_of_best(found: Sequence[float], best: Sequence[float]) -> float:
    # Which of equals is shown does not matter, so scores are compared and not ids.
    if not best:
        return float(not found)
    return sum(score >= best[-1] - 1e-6 for score in found) / len(best)


async def _typo_rows(
    bench: Bench, search: FullTextSearch, name: str, typos: Sequence[Typo]
) -> list[Row]:
    async def ask(session: AsyncSession, typo: Typo) -> str | None:
        results = await search.fuzzy_search(session, typo.typed, filters=_EVERYTHING, limit=_LIMIT)
        return results.did_you_mean

    rows = await bench.latency(f"fuzzy, {name}", ask, typos, goal_ms=_GOAL_FUZZY_MS)
    right = []
    for typo in typos:
        corrected = await bench.asking(ask)(typo)
        right.append(split_words(corrected or typo.typed).lower() == split_words(typo.meant))
    # What was typed right is searched as it stands, and a suggestion beside it is uncalled for.
    unasked = [await bench.asking(ask)(Typo(typo.meant, typo.meant)) is not None for typo in typos]
    return [
        *rows,
        share_row(f"fuzzy, {name}, right, {bench.size}", float(np.mean(right)), _RIGHT_WORD),
        row(f"fuzzy, {name}, suggested unasked, {bench.size}", float(np.mean(unasked)), "of 1"),
    ]


async def _other_rows(bench: Bench, search: FullTextSearch, questions: Questions) -> list[Row]:
    async def complete(session: AsyncSession, prefix: str) -> Any:
        return await search.autocomplete(session, prefix, filters=_EVERYTHING)

    async def count(session: AsyncSession, query: str) -> Any:
        return await search.facets(session, query, filters=_EVERYTHING)

    async def own(session: AsyncSession, query: str) -> Any:
        owner = bench.library.owners[0]
        filters = Filters(owner_id=owner, viewer_id=owner)
        return await search.search_audio_files(session, query, filters=filters, limit=_LIMIT)

    async def as_viewer(session: AsyncSession, query: str) -> Any:
        filters = Filters(viewer_id=bench.library.owners[3])
        return await search.search_audio_files(session, query, filters=filters, limit=_LIMIT)

    common = questions.text["common"]
    return [
        *await bench.latency("autocomplete", complete, questions.prefixes, goal_ms=_GOAL_PREFIX_MS),
        *await bench.latency("facets of a common word", count, common, goal_ms=_GOAL_FACETS_MS),
        *await bench.latency("text, common, owner of 30.00%", own, common),
        *await bench.latency("text, common, as one user sees it", as_viewer, common),
    ]
