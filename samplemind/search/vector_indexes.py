"""The indexes that search by sound needs, made where they are missing.

Migrations make them for a new database; this mends one where an index was dropped or was left
invalid by a failed build, and changes the method of the approximate one.

Invariant: idempotent; no writer waits; queries have an approximate index at every moment, because
one of another method is dropped only after the new one is whole. At the end there is one: of two,
the planner may take the worse.
"""

from enum import StrEnum
from typing import Any

import psycopg
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.postgres_errors import translated
from samplemind.search.text_indexes import outside_of_transactions
from samplemind.settings import SearchSettings


class VectorIndex(StrEnum):
    """Methods of the approximate index."""

    HNSW = "hnsw"  # a graph: finds more in less time, is slow to insert into
    IVFFLAT = "ivfflat"  # lists around centres: quick to build, right for what it was built from


_NEAREST = "ix_search_vectors_embedding"
_OF_OWNER = "ix_search_vectors_owner_id"
_DRAFT = "ix_search_vectors_embedding_new"

_VALID = """
SELECT relname, amname FROM pg_class
JOIN pg_index ON indexrelid = pg_class.oid JOIN pg_am ON pg_am.oid = relam
WHERE indrelid = 'search_vectors'::regclass AND indisvalid
"""


async def create_vector_indexes(
    session: AsyncSession, settings: SearchSettings, method: VectorIndex = VectorIndex.HNSW
) -> list[str]:
    """Create the missing ones, and the approximate one anew where it is of another method.

    Raises:
        TransientError: a statement met a time limit; calling again goes on.
    """
    async with outside_of_transactions(session) as connection:
        try:
            await _set_memory(connection, settings)
            try:
                return await _create_missing(connection, settings, method)
            finally:
                await connection.execute("RESET maintenance_work_mem")
                await connection.execute("RESET max_parallel_maintenance_workers")
        except psycopg.Error as error:
            known = translated(error)
            if known is None:
                raise
            raise known from error


async def _set_memory(connection: "psycopg.AsyncConnection[Any]", settings: SearchSettings) -> None:
    await connection.execute(
        "SELECT set_config('maintenance_work_mem', %s, false), "
        "set_config('max_parallel_maintenance_workers', %s, false)",
        (f"{settings.maintenance_memory_mib}MB", str(settings.build_workers)),
    )


async def _create_missing(
    connection: "psycopg.AsyncConnection[Any]", settings: SearchSettings, method: VectorIndex
) -> list[str]:
    cursor = await connection.execute(_VALID)
    present: dict[str, str] = dict(await cursor.fetchall())
    created = []
    if present.get(_NEAREST) != method:
        # Also what a call that was interrupted left.
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_DRAFT}".encode())
        options = _options(settings, method)
        await connection.execute(
            f"CREATE INDEX CONCURRENTLY {_DRAFT} ON search_vectors "
            f"USING {method} (embedding halfvec_cosine_ops) WITH {options}".encode()
        )
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_NEAREST}".encode())
        await connection.execute(f"ALTER INDEX {_DRAFT} RENAME TO {_NEAREST}".encode())
        created.append(_NEAREST)
    if _OF_OWNER not in present:
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_OF_OWNER}".encode())
        await connection.execute(
            f"CREATE INDEX CONCURRENTLY {_OF_OWNER} ON search_vectors (owner_id) "
            "INCLUDE (file_id, embedding_version, embedding)".encode()
        )
        created.append(_OF_OWNER)
    return created


def _options(settings: SearchSettings, method: VectorIndex) -> str:
    if method is VectorIndex.IVFFLAT:
        return f"(lists = {settings.ivfflat_lists:d})"
    return f"(m = {settings.hnsw_m:d}, ef_construction = {settings.hnsw_ef_construction:d})"
