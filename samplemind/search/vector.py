"""Search by sound: the nearest embeddings, exactly where few are compared, else by the index.

A filtered set that is small is compared one by one; a larger one is walked to in the index until
enough pass. Which of the two is known, not guessed: counting stops one past its bound.

Invariant: an answer is short only where the library has no more that pass. A vector that was
written a moment ago is found like any other.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any
from uuid import UUID

import numpy as np
from pgvector import HalfVector
from sqlalchemy import Row, Select, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.errors import InvalidInputError
from samplemind.models.search_document import SearchDocument
from samplemind.models.search_vector import FreshSearchVector, SearchVector
from samplemind.search.aspects import aspect_distances, check_weights, weighted_distance
from samplemind.search.filters import Filters
from samplemind.search.nearest import (
    COMPARE_SETTINGS,
    Metric,
    Scope,
    as_parameter,
    compare,
    count,
    for_each,
    walk,
    walk_settings,
)
from samplemind.search.query_limits import PLAN_MODE, limit_queries, plan_mode
from samplemind.search.recall import chosen_ef_search
from samplemind.search.results import (
    HIT_COLUMNS,
    Hit,
    Results,
    check_page,
    milliseconds_since,
    to_hit,
)
from samplemind.search.selectivity import estimated_rows
from samplemind.search.sound import Sound, Vector, stored_blocks, stored_sound
from samplemind.search.vector_indexes import VectorIndex, create_vector_indexes
from samplemind.settings import SearchSettings

MOST_VECTORS = 1000  # in one batch
MOST_BATCH_HITS = 100_000
DUPLICATE_SIMILARITY = 0.98

# What aspect weights put in order anew: so many of the nearest by embedding, at least.
_ASPECT_CANDIDATES = 500
# Visiting a document and a vector by their ids costs about as much as comparing so many more.
_COST_OF_A_VISIT = 8
_BATCH_MS = 20  # that a batch may take longer for each of its vectors
_TUNING_S = 30.0
_HALF_PRECISION = 1e-3
_MOST_EF_SEARCH = 1000  # pgvector's own bound

_KEPT_STATEMENTS = 256
_SOME_FILE = UUID(int=0)

_Way = Callable[..., Select[Any]]  # `compare` or `walk`


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One file near a sound; `similarity` is higher for nearer, its range is the metric's."""

    file_id: UUID
    similarity: float


@dataclass(frozen=True, slots=True)
class _Found:
    """Rows, and out of how many they were chosen; none where the index was walked."""

    rows: Sequence[Row[Any]]
    compared: int | None


@dataclass(frozen=True, slots=True)
class _Tuning:
    """What plans are chosen by, as it was at some time."""

    ef_search: int
    vectors: int
    expires: float


class VectorSearch:
    """Search by sound; one object may serve any number of sessions."""

    def __init__(self, settings: SearchSettings | None = None) -> None:
        self._settings = settings or SearchSettings()
        self._tuning: _Tuning | None = None

    async def similarity_search(
        self,
        session: AsyncSession,
        sound: Sound,
        *,
        metric: Metric = Metric.COSINE,
        filters: Filters | None = None,
        aspects: Mapping[str, float] | None = None,
        limit: int = 20,
        explain: bool = False,
    ) -> Results:
        """Return the files that sound most like `sound`, nearest first.

        The score is the cosine similarity (-1 to 1), the inner product, or 1 / (1 + distance) for
        L2 and for aspect weights. Files that the sound was made from are left out, and vectors of
        other embedding versions are never compared.

        Args:
            session: the transaction to read in.
            sound: what to be like; several sounds become one by `combine`.
            metric: how distance is told.
            filters: what results must be; none: what a stranger may see.
            aspects: aspect → weight; the nearest by embedding are ordered anew by these.
            limit: how many at most, 1 to 1000.
            explain: tell each score's parts.

        Raises:
            InvalidInputError: a bad limit or weight, aspects of a sound without blocks, or an
                embedding version that the index has none of.
            TransientError: the time limit ended the query.
        """
        check_page(limit)
        started = time.perf_counter()
        scope = Scope(sound.embedding_version, filters or Filters(), sound.made_from)
        if aspects is not None:
            hits = await self._by_aspects(session, scope, sound, check_weights(aspects), limit)
            compared = None
        else:
            found = await self._nearest(session, scope, [sound.vector], metric, limit)
            hits = [_to_hit(row, metric, explain=explain) for row in found.rows]
            compared = found.compared
        if not hits:
            await _check_version(session, sound.embedding_version)
        return _results(started, hits, compared, limit)

    async def batch_similarity_search(
        self,
        session: AsyncSession,
        sounds: Sequence[Sound],
        *,
        metric: Metric = Metric.COSINE,
        filters: Filters | None = None,
        limit: int = 20,
    ) -> list[Results]:
        """Return for each sound what `similarity_search` returns, in one statement.

        Files that any of the sounds was made from may be found for the others, but not for itself.

        Raises:
            InvalidInputError: no sounds or too many, too many results in all, a bad limit, or
                sounds of several embedding versions.
            TransientError: the time limit ended the query.
        """
        check_page(limit)
        _check_batch(sounds, limit)
        started = time.perf_counter()
        version = sounds[0].embedding_version
        own = max(len(sound.made_from) for sound in sounds)
        near = await self._nearest(
            session,
            Scope(version, filters or Filters()),
            [sound.vector for sound in sounds],
            metric,
            limit + own,
        )
        if not near.rows:
            await _check_version(session, version)
        found: list[list[Hit]] = [[] for _ in sounds]
        for row in near.rows:
            hits, sound = found[row.place - 1], sounds[row.place - 1]
            if row.file_id not in sound.made_from and len(hits) < limit:
                hits.append(_to_hit(row, metric, explain=False))
        return [_results(started, hits, near.compared, limit) for hits in found]

    async def near_duplicates(
        self,
        session: AsyncSession,
        file_id: UUID,
        *,
        similarity: float = DUPLICATE_SIMILARITY,
        filters: Filters | None = None,
        limit: int = 100,
    ) -> Results:
        """Return the files whose sound is almost that of `file_id`: at least so similar by cosine.

        Raises:
            InvalidInputError: the similarity is not above 0 and at most 1, or a bad limit.
            NotFoundError: the file is not in the index, or has no embedding.
        """
        if not 0 < similarity <= 1:
            message = f"the similarity of duplicates is above 0 and at most 1, not {similarity}"
            raise InvalidInputError(message)
        started = time.perf_counter()
        sound = await stored_sound(session, file_id, filters=filters)
        found = await self.similarity_search(session, sound, filters=filters, limit=limit)
        hits = [hit for hit in found.results if is_duplicate(hit.score, similarity)]
        return _results(started, hits, len(hits) if len(hits) < limit else None, limit)

    async def neighbours(
        self, session: AsyncSession, sound: Sound, *, filters: Filters, limit: int
    ) -> list[Neighbour]:
        """Return the nearest by cosine, without their documents, for further ranking."""
        scope = Scope(sound.embedding_version, filters, sound.made_from)
        found = await self._nearest(
            session, scope, [sound.vector], Metric.COSINE, limit, documents=False
        )
        if not found.rows:
            await _check_version(session, sound.embedding_version)
        return [Neighbour(row.file_id, _score(row.distance, Metric.COSINE)) for row in found.rows]

    async def create_vector_indexes(
        self, session: AsyncSession, *, method: VectorIndex = VectorIndex.HNSW
    ) -> list[str]:
        """Create indexes of vectors that are missing or of another method, blocking no writer.

        The session's transaction must not have begun anything: CONCURRENTLY works outside of one.

        Returns:
            The names of the indexes that were created; none on a second call.

        Raises:
            TransientError: a statement met a time limit; calling again goes on.
        """
        return await create_vector_indexes(session, self._settings, method)

    async def _by_aspects(
        self,
        session: AsyncSession,
        scope: Scope,
        sound: Sound,
        weights: Mapping[str, float],
        limit: int,
    ) -> list[Hit]:
        if sound.blocks is None:
            message = "aspect weights need the sound's blocks, and this one has none"
            raise InvalidInputError(message)
        take = min(max(_ASPECT_CANDIDATES, 4 * limit), _MOST_EF_SEARCH)
        found = await self._nearest(session, scope, [sound.vector], Metric.COSINE, take)
        blocks = await stored_blocks(session, [row.file_id for row in found.rows])
        rows = [row for row in found.rows if row.file_id in blocks]
        if not rows:
            return []
        apart = aspect_distances(sound.blocks, np.stack([blocks[row.file_id] for row in rows]))
        distances = weighted_distance(apart, weights)
        order = np.argsort(distances, kind="stable")[:limit]
        return [
            to_hit(
                rows[place],
                score=1 / (1 + float(distances[place])),
                explanation={name: round(float(apart[name][place]), 4) for name in weights},
            )
            for place in order
        ]

    async def _nearest(
        self,
        session: AsyncSession,
        scope: Scope,
        vectors: Sequence[Vector],
        metric: Metric,
        take: int,
        *,
        documents: bool = True,
    ) -> _Found:
        """Find the rows (place, file_id, distance, shown columns) by place and distance."""
        tuning = await self._tuned(session)
        many = len(vectors) > 1
        halves = [HalfVector(vector) for vector in vectors]
        parameters = {"wanted": halves if many else halves[0], "excluded": list(scope.excluded)}
        timeout_ms = self._settings.statement_timeout_ms + _BATCH_MS * (len(vectors) - 1)
        form = _form(scope)

        async def run(way: _Way, compared: int | None) -> _Found:
            ef_search = min(max(tuning.ef_search, take), _MOST_EF_SEARCH)
            extra = walk_settings(ef_search) if way is walk else COMPARE_SETTINGS
            planning = {PLAN_MODE: plan_mode(is_whole=way is walk and scope.whole)}
            await limit_queries(session, timeout_ms=timeout_ms, extra={**extra, **planning})
            query = _statement(way, form, metric, take, many=many, documents=documents)
            return _Found((await session.execute(query, parameters)).all(), compared)

        bound = self._bound(scope)
        if not (scope.whole and tuning.vectors > bound):
            planning = {PLAN_MODE: plan_mode(is_whole=False)}
            settings = {**COMPARE_SETTINGS, **planning}
            await limit_queries(session, timeout_ms=timeout_ms, extra=settings)
            counted = await session.scalar(_count(form, bound), parameters)
            passing = int(counted or 0)
            if passing <= bound:
                return await run(compare, passing)
        walked = await run(walk, None)
        if len(walked.rows) >= take * len(vectors):
            return walked
        # The walk gave up: the filter leaves too few near the sound.
        return await run(compare, None)

    def _bound(self, scope: Scope) -> int:
        bound = self._settings.exact_up_to
        indexed = scope.filters.owner_only and not scope.whole
        return bound if indexed else bound // _COST_OF_A_VISIT

    async def _tuned(self, session: AsyncSession) -> _Tuning:
        now = time.monotonic()
        if self._tuning is None or self._tuning.expires < now:
            await limit_queries(session, timeout_ms=self._settings.statement_timeout_ms)
            # Of a table that was never analyzed the comparison itself finds out how many there are.
            vectors = await estimated_rows(session, SearchVector)
            ef_search = await chosen_ef_search(session, self._settings.recall_target)
            self._tuning = _Tuning(ef_search, vectors, now + _TUNING_S)
        return self._tuning


def is_duplicate(score: float, similarity: float = DUPLICATE_SIMILARITY) -> bool:
    """Return whether a cosine similarity is that of two sounds that are almost the same."""
    # Half precision makes the similarity of two equal sounds a little less than 1.
    return score >= similarity - _HALF_PRECISION


def _form(scope: Scope) -> Scope:
    # Which files are left out is a parameter; that some are is part of the statement.
    return replace(scope, excluded=scope.excluded[:1] and (_SOME_FILE,))


# Making a statement takes as long as walking the index, so statements are kept.
@lru_cache(maxsize=_KEPT_STATEMENTS)
def _count(form: Scope, at_most: int) -> Select[Any]:
    return count(form, at_most=at_most)


@lru_cache(maxsize=_KEPT_STATEMENTS)
def _statement(
    way: _Way, form: Scope, metric: Metric, take: int, *, many: bool, documents: bool
) -> Select[Any]:
    """Return the query for (place, file_id, distance, columns of hits) of one or many vectors."""
    query = partial(way, form, metric=metric, take=take)
    if many:
        found = for_each(query)
    else:
        one = query(as_parameter()).subquery()
        found = select(literal(1).label("place"), *one.c)
    near = found.subquery("near")
    shown = select(*near.c)
    if documents:
        same_file = SearchDocument.file_id == near.c.file_id
        columns = [column for column in HIT_COLUMNS if column.key != "file_id"]
        shown = shown.add_columns(*columns).join(SearchDocument, same_file)
    return shown.order_by(near.c.place, near.c.distance, near.c.file_id)


def _score(distance: float, metric: Metric) -> float:
    if metric is Metric.COSINE:
        return 1 - distance
    return -distance if metric is Metric.INNER_PRODUCT else 1 / (1 + distance)


def _to_hit(row: Row[Any], metric: Metric, *, explain: bool) -> Hit:
    # What the score is made of: a distance, which is the smaller the nearer.
    name = f"{metric.value}_distance"
    explanation = {name: round(row.distance, 6)} if explain else None
    return to_hit(row, score=_score(row.distance, metric), explanation=explanation)


def _results(started: float, hits: Sequence[Hit], compared: int | None, limit: int) -> Results:
    if compared is None:
        # Fewer than were asked for are all there are.
        return Results(milliseconds_since(started), len(hits), len(hits) < limit, tuple(hits))
    return Results(milliseconds_since(started), compared, True, tuple(hits))


def _check_batch(sounds: Sequence[Sound], limit: int) -> None:
    if not 1 <= len(sounds) <= MOST_VECTORS:
        message = f"a batch has from 1 to {MOST_VECTORS} sounds, not {len(sounds)}"
        raise InvalidInputError(message)
    if len(sounds) * limit > MOST_BATCH_HITS:
        message = (
            f"{len(sounds)} sounds of {limit} results each are more than {MOST_BATCH_HITS}: "
            "lower the limit, or ask in parts"
        )
        raise InvalidInputError(message)
    versions = sorted({sound.embedding_version for sound in sounds})
    if len(versions) > 1:
        message = f"embeddings of different versions cannot be compared: {', '.join(versions)}"
        raise InvalidInputError(message)


async def _check_version(session: AsyncSession, version: str) -> None:
    """Refuse a version that no vector of the index has; an empty index refuses none."""
    for table in (SearchVector, FreshSearchVector):
        present = select(table.file_id).where(table.embedding_version == version).limit(1)
        if await session.scalar(present) is not None:
            return
    known: set[str] = set()
    for table in (SearchVector, FreshSearchVector):
        known.update(await session.scalars(select(table.embedding_version).distinct().limit(10)))
    if known:
        message = (
            f"no vector of the index has embedding version {version!r}; "
            f"it has {', '.join(sorted(known))}"
        )
        raise InvalidInputError(message)
