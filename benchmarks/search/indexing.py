"""How fast files come into the index, and what searches feel of it."""

import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks.row import Row, row
from benchmarks.search.measure import time_each
from benchmarks.search.sounds import CHUNK
from benchmarks.search.writer import BATCH, index, new_files
from samplemind.connections.postgres import ConnectionPool
from samplemind.search.journal import join_writers
from samplemind.search.merge import remove_files

_GOAL_NEW, _GOAL_UNCHANGED = 8_000, 20_000
_GOAL_SLOWER = 2.0

Ask = Callable[[Any], Awaitable[Any]]


async def indexing_rows(
    pool: ConnectionPool,
    home: Path,
    size: str,
    queries: dict[str, tuple[Ask, Sequence[Any]]],
    *,
    quick: bool,
) -> list[Row]:
    """Index new files into the loaded library twice, then again under searches; then remove them.

    Args:
        pool: of the loaded index.
        home: of its stack, where a second process finds it too.
        size: of the library, as it stands in the rows' names.
        queries: by class, how it is asked and what.
        quick: fewer files.
    """
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
        return rows + await _searches_meanwhile(home, len(files), size, queries)
    finally:
        await _remove(pool, [file.row.file_id for file in files])


def _rate_row(name: str, rate: float, goal: float) -> Row:
    return row(name, rate, "files/s", goal=f"≥ {goal:,}", met=rate >= goal)


async def _remove(pool: ConnectionPool, ids: Sequence[UUID]) -> None:
    for start in range(0, len(ids), BATCH):
        async with pool.session() as session:
            await join_writers(session)
            await remove_files(session, ids[start : start + BATCH])


async def _searches_meanwhile(
    home: Path,
    files: int,
    size: str,
    queries: dict[str, tuple[Ask, Sequence[Any]]],
) -> list[Row]:
    rows = []
    for name, (ask, questions) in queries.items():
        alone = (await time_each(ask, questions)).p95
        with _writing(home, files):
            during = (await time_each(ask, questions)).p95
        slower = during / alone
        rows += [
            row(f"{name} while indexing, {size}, p95", during, "ms"),
            row(
                f"{name} while indexing, times as long, {size}",
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
    command = [sys.executable, "-m", "benchmarks.search.writer", str(home), str(files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        try:
            yield
        finally:
            assert writer.poll() is None, "the writer ended by itself"
            writer.terminate()
