"""Search by words and by sound at once, each from its own index, with the same filters in both.

Invariant: a result passed the filters in the ranking that it comes from; the score is the fusion's
over the first candidates of each ranking, and nothing beyond them.
"""

import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Result, Row, Uuid, any_, bindparam, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.errors import InvalidInputError
from samplemind.models.search_document import SearchDocument
from samplemind.search.filters import Filters
from samplemind.search.full_text import FullTextSearch
from samplemind.search.fusion import Fused, Fusion, Ranked, fuse
from samplemind.search.languages import TextConfiguration
from samplemind.search.results import (
    HIT_COLUMNS,
    MAX_LIMIT,
    Results,
    check_page,
    milliseconds_since,
    to_hit,
)
from samplemind.search.sound import Sound
from samplemind.search.vector import VectorSearch
from samplemind.settings import SearchSettings

CANDIDATES = 100  # of each ranking, at least; beyond, a file's place hardly changes its score
_DECIMALS = 6
_DOCUMENTS = select(*HIT_COLUMNS).where(
    SearchDocument.file_id == any_(bindparam("file_ids", type_=ARRAY(Uuid)))
)


class HybridSearch:
    """Search by words and by sound; one object may serve any number of sessions."""

    def __init__(
        self,
        settings: SearchSettings | None = None,
        *,
        full_text: FullTextSearch | None = None,
        vector: VectorSearch | None = None,
    ) -> None:
        self._full_text = full_text or FullTextSearch(settings)
        self._vector = vector or VectorSearch(settings)

    async def hybrid_search(
        self,
        session: AsyncSession,
        query: str,
        sound: Sound,
        *,
        fusion: Fusion = Fusion.RECIPROCAL_RANK,
        text_weight: float = 0.5,
        sound_weight: float = 0.5,
        filters: Filters | None = None,
        languages: Collection[TextConfiguration] = (),
        limit: int = 20,
        explain: bool = False,
    ) -> Results:
        """Return the files that match the words, sound like the sound, or best both.

        Args:
            session: the transaction to read in.
            query: as `FullTextSearch.search_audio_files` reads it.
            sound: what to be like.
            fusion: reciprocal ranks, which heed no weights, or weighted scores.
            text_weight: 0 or more; only the ratio of the two weights counts.
            sound_weight: 0 or more.
            filters: what results must be; none: what a stranger may see.
            languages: configurations that the query is read in beside the deployment's.
            limit: how many at most, 1 to 1000.
            explain: tell each score's parts: rank, score and share of words and of sound.

        Raises:
            InvalidInputError: what either search refuses, or weights that are negative, not
                finite or both zero.
            TransientError: the time limit ended a query.
        """
        check_page(limit)
        weights = _shares(text_weight, sound_weight)
        started = time.perf_counter()
        whose = filters or Filters()
        take = min(max(CANDIDATES, 2 * limit), MAX_LIMIT)
        matches = await self._full_text.best_matches(
            session, query, filters=whose, limit=take, languages=languages
        )
        near = await self._vector.neighbours(session, sound, filters=whose, limit=take)
        made_from = set(sound.made_from)
        rankings = {
            "text": [Ranked(*match) for match in matches.ranked if match[0] not in made_from],
            "sound": [Ranked(one.file_id, one.similarity) for one in near],
        }
        fused = fuse(rankings, fusion=fusion, weights=weights)
        best = await self._documents(session, fused[:limit])
        marks = await self._full_text.mark(
            session, [row for _, row in best], matches.lexemes, languages
        )
        shown = [
            to_hit(
                row,
                score=one.score,
                highlight=mark,
                explanation=_rounded(one.parts) if explain else None,
            )
            for (one, row), mark in zip(best, marks, strict=True)
        ]
        # Whatever both rankings left out is not counted.
        whole = len(matches.ranked) < take and len(near) < take
        return Results(milliseconds_since(started), len(fused), whole, tuple(shown))

    async def _documents(
        self, session: AsyncSession, fused: Sequence[Fused]
    ) -> list[tuple[Fused, Row[Any]]]:
        parameters = {"file_ids": [one.file_id for one in fused]}
        found: Result[Any] = await session.execute(_DOCUMENTS, parameters)
        rows = {row.file_id: row for row in found}
        # A file that was deleted since its ranking was read is not shown.
        return [(one, rows[one.file_id]) for one in fused if one.file_id in rows]


def _rounded(parts: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, _DECIMALS) for name, value in parts.items()}


def _shares(text_weight: float, sound_weight: float) -> dict[str, float]:
    weights = (text_weight, sound_weight)
    total = text_weight + sound_weight
    if not all(math.isfinite(each) and each >= 0 for each in weights) or not 0 < total < math.inf:
        message = (
            "the weights of words and sound are 0 or more, and not both 0; "
            f"not {text_weight} and {sound_weight}"
        )
        raise InvalidInputError(message)
    return {"text": text_weight / total, "sound": sound_weight / total}
