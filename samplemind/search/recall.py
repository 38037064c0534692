"""How much of the exact answer the approximate index finds, and how far a query must look for it.

Invariant: recall is measured against a comparison with all vectors, by the same statements that
answer queries. What is asked for are vectors of the library moved to where no file is: those that
the graph links are found more easily than a new sound's nearest (a recall of .99 where it is .93,
at an `ef_search` of 20 and 100,000 files). What is chosen is the least `ef_search`
that reached the target with a standard error to spare; where none did, the greatest that was tried.
The mean alone chose too little: at a million files .951 of the sample was .948 of new sounds.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Select, Text, cast, delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.errors import InvalidInputError
from samplemind.models.search_recall import SearchRecall
from samplemind.models.search_vector import SearchVector
from samplemind.search.filters import Filters
from samplemind.search.nearest import (
    COMPARE_SETTINGS,
    Metric,
    Scope,
    as_parameter,
    compare,
    walk,
    walk_settings,
)
from samplemind.search.query_limits import limit_queries
from samplemind.search.sound import Sound, as_array, unit

RECALL_AT = 10
LADDER = (20, 40, 60, 80, 100, 120, 140, 170, 200, 300, 500)
# Until it was measured: recall@10 of .97 at a million clustered vectors.
UNMEASURED_EF_SEARCH = 100
# The mean of n errs by some .13 / sqrt(n), and what it may err by asks for a greater `ef_search`.
_QUERIES = 400
_MOST_QUERIES = 1000
_TIMEOUT_MS = 60_000  # a comparison with millions of vectors that are not in memory
_COMPARING_S = 60.0
# Fewer say too little whatever they cost, and their standard error asks for a greater `ef_search`.
_LEAST_QUERIES = 50
_MOVING_EF_SEARCH = 200


Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Recall:
    """What one `ef_search` gave.

    Attributes:
        ef_search: candidates that the index keeps while it looks.
        recall: mean share of the true nearest that were found, 0 to 1.
        surely: the same less its standard error.
        milliseconds: median duration of a query.
        queries: how many were asked.
    """

    ef_search: int
    recall: float
    surely: float
    milliseconds: float
    queries: int


def choose_ef_search(measured: Sequence[Recall], target: float) -> int:
    """Return the least `ef_search` that surely reaches the target, else the greatest there is."""
    enough = [each.ef_search for each in measured if each.surely >= target]
    if enough:
        return min(enough)
    return max((each.ef_search for each in measured), default=UNMEASURED_EF_SEARCH)


async def calibrate(
    session: AsyncSession,
    *,
    queries: int = _QUERIES,
    ladder: Sequence[int] = LADDER,
    within_s: float = _COMPARING_S,
    progress: Progress = lambda _done, _total: None,
) -> tuple[Recall, ...]:
    """Measure each `ef_search` of the ladder and keep the figures, by which queries choose theirs.

    Args:
        session: the transaction to measure and write in.
        queries: vectors that are sampled at most.
        ladder: each `ef_search` to try.
        within_s: seconds after which no further vector is compared with the whole library (0.2 s
            each at a million), if 50 were: what fewer may err by is part of the choice.
        progress: called with how many steps are done, and how many there are.

    Returns:
        the figures by `ef_search`; none where the library has no vectors to measure with.

    Raises:
        InvalidInputError: the number of queries or a step of the ladder is out of range.
    """
    measured = await measure_recall(
        session, queries=queries, ladder=ladder, within_s=within_s, progress=progress
    )
    if not measured:
        return ()
    await session.execute(delete(SearchRecall))
    vectors = await session.scalar(_ROWS)
    now = datetime.now(UTC)
    await session.execute(
        insert(SearchRecall),
        [
            {
                "ef_search": each.ef_search,
                "recall": each.recall,
                "surely": each.surely,
                "milliseconds": each.milliseconds,
                "queries": each.queries,
                "vectors": max(int(vectors or 0), 0),
                "measured_at": now,
            }
            for each in measured
        ],
    )
    return measured


async def measure_recall(
    session: AsyncSession,
    *,
    queries: int = _QUERIES,
    ladder: Sequence[int] = LADDER,
    within_s: float = _COMPARING_S,
    progress: Progress = lambda _done, _total: None,
) -> tuple[Recall, ...]:
    """Return what each `ef_search` finds of the ten nearest of sampled sounds; changes nothing.

    Its arguments are those of `calibrate`.

    Raises:
        InvalidInputError: the number of queries or a step of the ladder is out of range.
    """
    if not 1 <= queries <= _MOST_QUERIES:
        message = f"recall is measured with 1 to {_MOST_QUERIES} queries, not {queries}"
        raise InvalidInputError(message)
    if not ladder or not all(RECALL_AT <= step <= 1000 for step in ladder):
        message = f"ef_search is from {RECALL_AT} to 1000"
        raise InvalidInputError(message)
    steps = sorted(set(ladder))
    sample = await _sample(session, queries)
    if not sample:
        return ()
    total = len(sample) + len(steps)
    await limit_queries(session, timeout_ms=_TIMEOUT_MS, extra=COMPARE_SETTINGS)
    exact: list[set[UUID]] = []
    deadline = time.monotonic() + within_s
    for sound in sample:
        if time.monotonic() >= deadline and len(exact) >= _LEAST_QUERIES:
            break
        exact.append(set(await _ids(session, sound, approximate=False)))
        progress(len(exact), total)
    measured = []
    for place, step in enumerate(steps, 1):
        await limit_queries(session, timeout_ms=_TIMEOUT_MS, extra=walk_settings(step))
        measured.append(await _measure(session, sample[: len(exact)], exact, step))
        progress(len(sample) + place, total)
    return tuple(measured)


async def chosen_ef_search(session: AsyncSession, target: float) -> int:
    """Return the `ef_search` for a recall target, by the figures that were measured last."""
    rows = await session.execute(
        select(
            SearchRecall.ef_search,
            SearchRecall.recall,
            SearchRecall.surely,
            SearchRecall.milliseconds,
            SearchRecall.queries,
        )
    )
    return choose_ef_search([Recall(*row) for row in rows], target)


_ROWS = text("SELECT reltuples::bigint FROM pg_class WHERE oid = 'search_vectors'::regclass")


async def _sample(session: AsyncSession, count: int) -> list[Sound]:
    # The order of a hash is as good as chance, and the same for every measurement of one library.
    await limit_queries(session, timeout_ms=_TIMEOUT_MS, extra=COMPARE_SETTINGS)
    rows = await session.execute(
        select(SearchVector.file_id, SearchVector.embedding, SearchVector.embedding_version)
        .order_by(func.hashtextextended(cast(SearchVector.file_id, Text), 0))
        .limit(count)
    )
    sounds = [
        Sound(as_array(row.embedding), row.embedding_version, made_from=(row.file_id,))
        for row in rows
        if np.any(as_array(row.embedding))
    ]
    # Where its neighbours differ is near enough to be told by the index.
    await limit_queries(session, timeout_ms=_TIMEOUT_MS, extra=walk_settings(_MOVING_EF_SEARCH))
    return [await _moved(session, sound) for sound in sounds]


async def _moved(session: AsyncSession, sound: Sound) -> Sound:
    """Return a sound as far from this one as its nearest is, where the library has none.

    It goes where its neighbours differ: sounds of one kind lie so, and a step in any other
    direction would be harder to find the way to than any sound is.
    """
    query = _query(sound, approximate=True, take=RECALL_AT)
    near = (await session.execute(query)).all()
    vectors = [
        as_array(vector)
        for vector in await session.scalars(
            select(SearchVector.embedding).where(
                SearchVector.file_id.in_([near[0].file_id, near[-1].file_id] if near else [])
            )
        )
    ]
    if len(vectors) < 2 or not np.any(vectors[0] - vectors[1]):
        return sound
    distance = (2 * max(near[0].distance, 0.0)) ** 0.5  # between the ends of unit vectors
    way = unit(vectors[0] - vectors[1])
    moved = sound.direction + np.float32(distance) * way
    return replace(sound, vector=moved) if moved.any() else sound


async def _measure(
    session: AsyncSession, sample: Sequence[Sound], exact: Sequence[set[UUID]], ef_search: int
) -> Recall:
    shares, durations = [], []
    for sound, true_nearest in zip(sample, exact, strict=True):
        started = time.perf_counter()
        found = await _ids(session, sound, approximate=True)
        durations.append((time.perf_counter() - started) * 1000)
        if true_nearest:
            shares.append(len(true_nearest.intersection(found)) / len(true_nearest))
    mean = statistics.fmean(shares) if shares else 1.0
    spread = statistics.stdev(shares) / len(shares) ** 0.5 if len(shares) > 1 else 0.0
    median = statistics.median(durations)
    return Recall(ef_search, mean, mean - spread, median, len(sample))


async def _ids(session: AsyncSession, sound: Sound, *, approximate: bool) -> list[UUID]:
    query = _query(sound, approximate=approximate, take=RECALL_AT)
    return [row.file_id for row in await session.execute(query)]


def _query(sound: Sound, *, approximate: bool, take: int) -> Select[Any]:
    scope = Scope(sound.embedding_version, Filters(everything=True), sound.made_from)
    find = walk if approximate else compare
    return find(scope, as_parameter(sound.direction), metric=Metric.COSINE, take=take)
