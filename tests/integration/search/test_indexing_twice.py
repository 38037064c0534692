"""Indexing as a function: what the index holds follows from the files and from nothing else."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.resources import Connections
from samplemind.search.journal import join_writers
from samplemind.search.merge import merge_files, remove_files
from samplemind.search.rows import IndexedFile
from tests.corpus import make_corpus

CORPUS = make_corpus(120, seed=7)
TABLES = ("search_documents", "search_texts", "search_vectors_fresh", "search_vectors")


async def test_indexing_twice_changes_nothing(connections: Connections) -> None:
    files = CORPUS.indexed()
    await write(connections, files)
    before = await versions(connections)

    assert await write(connections, files) == 0
    assert await versions(connections) == before


async def test_the_order_and_the_chunks_of_writing_do_not_matter(connections: Connections) -> None:
    files = CORPUS.indexed()
    await write(connections, files)
    at_once = await contents(connections)
    await remove(connections, files)
    for start in range(0, len(files), 7):
        await write(connections, list(reversed(files))[start : start + 7])

    assert await contents(connections) == at_once


async def test_removing_what_was_written_leaves_nothing(connections: Connections) -> None:
    files = CORPUS.indexed()
    await write(connections, files)
    await remove(connections, files)

    assert all(not rows for rows in (await contents(connections)).values())


async def write(connections: Connections, files: list[IndexedFile]) -> int:
    async with connections.postgres.session() as session:
        await join_writers(session)
        return len(await merge_files(session, files))


async def remove(connections: Connections, files: list[IndexedFile]) -> None:
    async with connections.postgres.session() as session:
        await join_writers(session)
        await remove_files(session, [file.row.file_id for file in files])


async def contents(connections: Connections) -> dict[str, list[str]]:
    """Every row but the time at which it was written."""
    return await _rows(connections, "to_jsonb(t) - 'indexed_at'")


async def versions(connections: Connections) -> dict[str, list[str]]:
    """Each row's place and version: what any write to it would change."""
    return await _rows(connections, "concat(file_id, ctid, xmin, xmax)")


async def _rows(connections: Connections, what: str) -> dict[str, list[str]]:
    async with connections.postgres.session() as session:
        return {table: await _of(session, table, what) for table in TABLES}


async def _of(session: AsyncSession, table: str, what: str) -> list[str]:
    query = f"SELECT ({what})::text FROM {table} AS t ORDER BY file_id"  # noqa: S608 - constants
    return list(await session.scalars(text(query)))
