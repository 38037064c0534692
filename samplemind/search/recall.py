"""How much of the exact answer the approximate index finds, and how far a query must look for it.

Invariant: recall is measured against a comparison with all vectors, by the statement that answers
queries. What is asked for are vectors of the library moved to where no file is: those that
the graph links are found more easily than a new sound's nearest (a recall of .99 where it is .93,
at an `ef_search` of 20 and 100,000 files). What is chosen is the least `ef_search` that reached the
target with a standard error to spare; where none did, the greatest that was tried. The mean alone
chose too little: at a million files .951 of the sample was .948 of new sounds. Work is bounded: the
library is read once, and where the time is up fewer samples stand behind a figure, which tells how
many.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Select, Text, cast, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.errors import InvalidInputError
from samplemind.models.search_recall import SearchRecall
from samplemind.models.search_vector import SearchVector
from samplemind.search.exact import true_nearest
from samplemind.search.filters import Filters
from samplemind.search.nearest import (
    COMPARE_SETTINGS,
    Metric,
    Scope,
    as_parameter,
    walk,
    walk_settings,
)
from samplemind.search.query_limits import limit_queries
from samplemind.search.selectivity import estimated_rows
from samplemind.search.sound import Sound, as_array, unit

RECALL_AT = 10
LADDER = (20, 40, 60, 80, 100, 120, 140, 170, 200, 300, 500)
# Until it was measured: recall@10 of .97 at a million clustered vectors.
UNMEASURED_EF_SEARCH = 100
# The mean of n errs by some .13 / sqrt(n), and what it may err by asks for a greater `ef_search`.
QUERIES = 400
MOST_QUERIES = 1000
_LEAST_QUERIES = 30  # however short the time: fewer tell nothing
WITHIN_S = 60.0
# Where the neighbours of a sample are looked for, by which it is moved; they need not be all.
_MOVING_EF_SEARCH = 200
_TIMEOUT_MS = 60_000  # a stretch of vectors that are not in memory

Progress = Callable[[int, int], None]
"""Called with the share of the work that is done, in thousandths, and a thousand."""


@dataclass(frozen=True, slots=True)
class Recall:
    """What one `ef_search` gave.

    Attributes:
        ef_search: candidates that the index keeps while it looks.
        recall: mean share of the true nearest that were found, 0 to 1.
        surely: the same less its standard error.
        milliseconds: median duration of a query.
        queries: how many samples stand behind it.
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
    queries: int = QUERIES,
    ladder: Sequence[int] = LADDER,
    within_s: float = WITHIN_S,
    progress: Progress = lambda _done, _total: None,
) -> tuple[Recall, ...]:
    """Measure each `ef_search` of the ladder and keep the figures, by which queries choose theirs.

    Returns:
        the figures by `ef_search`; none where the library has no vectors to measure with.

    Raises:
        InvalidInputError: the number of queries, a step of the ladder or the time is out of range.
    """
    measured = await measure_recall(
        session, queries=queries, ladder=ladder, within_s=within_s, progress=progress
    )
    if not measured:
        return ()
    await session.execute(delete(SearchRecall))
    vectors = await estimated_rows(session, SearchVector)
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
                "vectors": vectors,
                "measured_at": now,
            }
            for each in measured
        ],
    )
    return measured


async def measure_recall(
    session: AsyncSession,
    *,
    queries: int = QUERIES,
    ladder: Sequence[int] = LADDER,
    within_s: float = WITHIN_S,
    progress: Progress = lambda _done, _total: None,
) -> tuple[Recall, ...]:
    """Return what each `ef_search` finds of the ten nearest of sampled sounds; changes nothing.

    Args:
        session: the transaction to read in.
        queries: how many sounds are sampled at most.
        ladder: what is tried.
        within_s: seconds for trying; each step has its share of what is left, and asks for fewer
            sounds where that is too short, but for 30 at least.
        progress: told how far it is.

    Raises:
        InvalidInputError: the number of queries, a step of the ladder or the time is out of range.
    """
    _check(queries, ladder, within_s)
    sample = await _sample(session, queries)
    if not sample:
        return ()
    exact = await _exact(session, sample, progress)
    steps = sorted(set(ladder))
    deadline = time.monotonic() + within_s
    measured = []
    for done, step in enumerate(steps):
        progress(500 + 500 * done // len(steps), 1000)
        await limit_queries(session, timeout_ms=_TIMEOUT_MS, extra=walk_settings(step))
        share = (deadline - time.monotonic()) / (len(steps) - done)
        measured.append(await _measure(session, sample, exact, step, share))
    progress(1000, 1000)
    return tuple(measured)


def _check(queries: int, ladder: Sequence[int], within_s: float) -> None:
    if not 1 <= queries <= MOST_QUERIES:
        message = f"recall is measured with 1 to {MOST_QUERIES} queries, not {queries}"
        raise InvalidInputError(message)
    if not ladder or not all(RECALL_AT <= step <= 1000 for step in ladder):
        message = f"ef_search is from {RECALL_AT} to 1000"
        raise InvalidInputError(message)
    if not within_s >= 0:
        message = f"the time for measuring recall is 0 seconds or more, not {within_s}"
        raise InvalidInputError(message)


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
    versions = Counter(sound.embedding_version for sound in sounds)
    await limit_queries(session, timeout_ms=_TIMEOUT_MS, extra=walk_settings(_MOVING_EF_SEARCH))
    return [
        await _moved(session, sound)
        for sound in sounds
        # While one embedding replaces another, what most files have.
        if sound.embedding_version == versions.most_common(1)[0][0]
    ]


async def _moved(session: AsyncSession, sound: Sound) -> Sound:
    """Return a sound as far from this one as its nearest is, where the library has none.

    It goes where its neighbours differ: sounds of one kind lie so, and a step in any other
    direction would be harder to find the way to than any sound is.
    """
    near = (await session.execute(_query(sound))).all()
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


async def _exact(
    session: AsyncSession, sample: Sequence[Sound], progress: Progress
) -> list[set[UUID]]:
    def tell(done: int, total: int) -> None:
        progress(500 * done // max(total, 1), 1000)

    found = await true_nearest(
        session,
        [sound.direction for sound in sample],
        sample[0].embedding_version,
        take=RECALL_AT + 1,  # one of them may be what the sound was made from
        progress=tell,
    )
    return [
        set([file_id for file_id in ids if file_id not in sound.made_from][:RECALL_AT])
        for sound, ids in zip(sample, found, strict=True)
    ]


async def _measure(
    session: AsyncSession,
    sample: Sequence[Sound],
    exact: Sequence[set[UUID]],
    ef_search: int,
    within_s: float,
) -> Recall:
    shares: list[float] = []
    durations: list[float] = []
    begun = time.monotonic()
    for sound, true_ids in zip(sample, exact, strict=True):
        if len(durations) >= _LEAST_QUERIES and time.monotonic() - begun > within_s:
            break
        started = time.perf_counter()
        found = [row.file_id for row in await session.execute(_query(sound))]
        durations.append((time.perf_counter() - started) * 1000)
        if true_ids:
            shares.append(len(true_ids.intersection(found)) / len(true_ids))
    mean = statistics.fmean(shares) if shares else 1.0
    spread = statistics.stdev(shares) / len(shares) ** 0.5 if len(shares) > 1 else 0.0
    milliseconds = statistics.median(durations)
    return Recall(ef_search, mean, mean - spread, milliseconds, len(durations))


def _query(sound: Sound) -> Select[Any]:
    scope = Scope(sound.embedding_version, Filters(everything=True), sound.made_from)
    return walk(scope, as_parameter(sound.direction), metric=Metric.COSINE, take=RECALL_AT)
