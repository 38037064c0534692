"""How fast files come into the index, and what searches feel of it."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.row import Row, row
from benchmarks.search.bench import Ask, Bench
from benchmarks.search.measure import time_each
from benchmarks.search.questions import Questions
from benchmarks.search.sounds import CHUNK, EMBEDDING_VERSION, Vectors
from benchmarks.search.writer import BATCH, index, new_files
from samplemind.connections.postgres import ConnectionPool
from samplemind.search.filters import Filters
from samplemind.search.full_text import FullTextSearch
from samplemind.search.journal import join_writers
from samplemind.search.merge import remove_files
from samplemind.search.sound import Sound
from samplemind.search.vector import VectorSearch

_GOAL_NEW, _GOAL_UNCHANGED = 8_000, 20_000
_GOAL_SLOWER = 2.0

_EVERYTHING = Filters(everything=True)


async def indexing_rows(bench: Bench, questions: Questions, *, quick: bool) -> list[Row]:
    """Index new files twice, then others while searches go on, and remove them all at the end."""
    pool, size = bench.pool, bench.size
    started = time.perf_counter()
    files = new_files(CHUNK if quick else 4 * CHUNK)
    made = len(files) / (time.perf_counter() - started)
    try:
        rates = {}
        for name in ("new", "unchanged"):
            started = time.perf_counter()
            written = await index(pool, files)
            rates[name] = len(files) / (time.perf_counter() - started)
            assert written == (len(files) if name == "new" else 0)
        rows = [
            row(f"rows of files made, {size}", made, "files/s"),
            _rate_row(f"new files indexed, {size}", rates["new"], _GOAL_NEW),
            _rate_row(f"unchanged files indexed, {size}", rates["unchanged"], _GOAL_UNCHANGED),
        ]
        return rows + await _searches_meanwhile(bench, len(files), questions)
    finally:
        await _remove(pool, [file.row.file_id for file in files])


def _rate_row(name: str, rate: float, goal: float) -> Row:
    return row(name, rate, "files/s", goal=f"≥ {goal:,}", met=rate >= goal)


async def _remove(pool: ConnectionPool, ids: Sequence[UUID]) -> None:
    for start in range(0, len(ids), BATCH):
        async with pool.session() as session:
            await join_writers(session)
            await remove_files(session, ids[start : start + BATCH])


async def _searches_meanwhile(bench: Bench, files: int, questions: Questions) -> list[Row]:
    words, sounds = FullTextSearch(bench.settings), VectorSearch(bench.settings)

    async def ask_words(session: AsyncSession, query: str) -> Any:
        return await words.search_audio_files(session, query, filters=_EVERYTHING)

    async def ask_sound(session: AsyncSession, vector: Vectors) -> Any:
        sound = Sound(vector, EMBEDDING_VERSION)
        return await sounds.similarity_search(session, sound, filters=_EVERYTHING)

    asked: tuple[tuple[str, Ask, Sequence[Any]], ...] = (
        ("text, several words", ask_words, questions.text["several words"]),
        ("similar", ask_sound, list(bench.library.query_vectors(bench.questions))),
    )
    rows = []
    for name, in_session, each in asked:
        ask = bench.asking(in_session)
        alone = (await time_each(ask, each)).p95
        with _writing(bench.home, files):
            during = (await time_each(ask, each)).p95
        slower = during / alone
        rows += [
            row(f"{name} while indexing, {bench.size}, p95", during, "ms"),
            row(
                f"{name} while indexing, times as long, {bench.size}",
                slower,
                "×",
                goal=f"≤ {_GOAL_SLOWER:g}",
                met=slower <= _GOAL_SLOWER,
            ),
        ]
    return rows


@contextmanager
def _writing(home: Path, files: int) -> Iterator[None]:
    """Have another process index changed files for as long as the block lasts."""
    code = "from benchmarks.search.writer import main; main()"
    command = [sys.executable, "-c", code, str(home), str(files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        try:
            yield
        finally:
            assert writer.poll() is None, "the writer ended by itself"
            writer.terminate()
