"""A process that keeps indexing changed files, as a worker does.

It prints a line when it begins, and goes on until it is ended: rows are made before, so that what
runs beside the searches is the server's work.
"""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.search.index_rows import index_chunk
from benchmarks.search.sounds import Library
from samplemind.connections.postgres import ConnectionPool
from samplemind.connections.resources import Connections
from samplemind.endpoints import read_endpoints
from samplemind.search.journal import join_writers, record_changes
from samplemind.search.merge import merge_files
from samplemind.search.rows import IndexedFile
from samplemind.settings import load_settings

BATCH = 5_000  # files in one transaction
SEED = 1_000  # of files that the library does not have


def new_files(count: int) -> list[IndexedFile]:
    """Return the rows of files that are not in the library; always the same."""
    return [file for chunk in Library(count, seed=SEED) for file in index_chunk(chunk)]


async def index(pool: ConnectionPool, files: list[IndexedFile]) -> int:
    """Merge files in transactions of `BATCH`; return how many were written."""
    written = 0
    for start in range(0, len(files), BATCH):
        async with pool.session() as session:
            await join_writers(session)
            ids = await merge_files(session, files[start : start + BATCH])
            await record_changes(session, ids)
        written += len(ids)
    return written


def changes(files: list[IndexedFile]) -> Iterator[list[IndexedFile]]:
    """Yield the files again and again, each time with another word in the title."""
    revision = 1
    while True:
        revision += 1
        yield [
            IndexedFile(
                file.row._replace(
                    revision=revision,
                    title_words=f"{file.row.title_words} take {revision}",
                    fingerprint=revision.to_bytes(16, "big"),
                ),
                file.embedding,
                file.blocks,
            )
            for file in files
        ]


async def _write(home: Path, count: int) -> None:
    settings = load_settings().model_copy(update={"home": home}).with_urls(read_endpoints(home))
    files = new_files(count)
    async with Connections(settings) as connections:
        print("writing", flush=True)
        for changed in changes(files):
            await index(connections.postgres, changed)


def main() -> None:
    """Write until ended; the arguments are the home and the number of files."""
    asyncio.run(_write(Path(sys.argv[1]), int(sys.argv[2])))
