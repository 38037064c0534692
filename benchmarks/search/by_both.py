"""Search by words and sound together, fused by rank and by weighted scores."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.row import Row
from benchmarks.search.bench import Bench
from benchmarks.search.questions import Questions
from benchmarks.search.sounds import EMBEDDING_VERSION
from samplemind.search.filters import Filters
from samplemind.search.fusion import Fusion
from samplemind.search.hybrid import HybridSearch
from samplemind.search.sound import Sound

_GOAL_MS = 30
_EVERYTHING = Filters(everything=True)


async def both_rows(bench: Bench, questions: Questions) -> list[Row]:
    """Return the rows of both fusions, over words of every class."""
    search = HybridSearch(bench.settings)
    vectors = bench.library.query_vectors(bench.questions)
    classes = list(questions.text.values())
    asked = [
        (classes[place % len(classes)][place], Sound(vector, EMBEDDING_VERSION))
        for place, vector in enumerate(vectors)
    ]
    rows: list[Row] = []
    for fusion in Fusion:

        async def ask(
            session: AsyncSession, question: tuple[str, Sound], fusion: Fusion = fusion
        ) -> Any:
            return await search.hybrid_search(
                session, question[0], question[1], fusion=fusion, filters=_EVERYTHING
            )

        rows += await bench.latency(f"hybrid, {fusion.value}", ask, asked, goal_ms=_GOAL_MS)
    return rows
