"""The search at a hundred thousand files, or at a million, beside tantivy and hnswlib."""

import asyncio
from pathlib import Path

from benchmarks.platform import temporary_home
from benchmarks.row import Row
from benchmarks.search.bench import Bench
from benchmarks.search.by_both import both_rows
from benchmarks.search.by_sound import sound_rows
from benchmarks.search.by_words import word_rows
from benchmarks.search.indexing import indexing_rows
from benchmarks.search.questions import ask_about
from benchmarks.search.serve import loaded_index
from benchmarks.search.sounds import Library
from samplemind.connections.resources import Connections
from samplemind.search.statistics import refresh_vocabulary
from samplemind.settings import Settings

FILES = 100_000
_QUICK_FILES = 20_000


def rows(*, quick: bool, files: int = FILES, home: Path | None = None) -> list[Row]:
    """Return the rows of every query class and of indexing.

    Args:
        quick: fewer files and questions.
        files: in the library.
        home: of a stack whose index is kept, and used again where it is loaded; none: a new one.
    """
    library = Library(min(files, _QUICK_FILES) if quick else files)
    if home is not None:
        return _measure(home, library, quick=quick)
    with temporary_home() as new:
        return _measure(new, library, quick=quick)


def _measure(home: Path, library: Library, *, quick: bool) -> list[Row]:
    with loaded_index(home, library) as settings:
        return asyncio.run(_ask(settings, library, quick=quick))


async def _ask(settings: Settings, library: Library, *, quick: bool) -> list[Row]:
    async with Connections(settings) as connections:
        pool = connections.postgres
        async with pool.session() as session:
            await refresh_vocabulary(session)
        bench = Bench(
            settings.home,
            pool,
            library,
            settings.search,
            questions=40 if quick else 200,
            seconds=0.5 if quick else 3,
        )
        questions = ask_about(library, bench.questions)
        return [
            *await word_rows(bench, questions),
            *await sound_rows(bench),
            *await both_rows(bench, questions),
            *await indexing_rows(bench, questions, quick=quick),
        ]
