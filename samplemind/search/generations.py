"""The next generation of the index's tables, beside the present one until it takes its place.

Each table has a twin with `_next` after its name, filled without indexes and indexed afterwards
as the present one is. Names stay, so no query ever knows which generation it reads.

Invariant: nothing here touches a present table before `switch_tables`, and that is one
transaction: there is one whole index at every moment.
"""
# ruff: noqa: S608 - every name in the statements is a constant of this module

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.search.merge import DOCUMENT_COLUMNS, WORDS, stage_files
from samplemind.search.rows import IndexedFile
from samplemind.settings import SearchSettings

TABLES = (
    "search_texts",
    "search_vectors_fresh",
    "search_vectors",
    "search_blocks",
    "search_documents",
)
_LOADED_TEXTS = "search_texts_loaded_next"

_NEXT_WAIT_MS = 100

_DROP = text(
    f"DROP TABLE IF EXISTS {_LOADED_TEXTS}, {', '.join(f'{table}_next' for table in TABLES)}"
)
_CREATE = (
    *(
        text(
            f"CREATE TABLE {table}_next (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS "
            "INCLUDING STORAGE INCLUDING COMPRESSION INCLUDING COMMENTS)"
        )
        for table in TABLES
    ),
    text(f"CREATE UNLOGGED TABLE {_LOADED_TEXTS} (LIKE search_texts)"),
)
# LIKE does not copy who may read.
_GRANTS = text("""
SELECT format('GRANT %s ON %I TO %s', privilege_type, relname || '_next',
              CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END)
FROM pg_class, aclexplode(relacl)
WHERE pg_class.oid = ANY(CAST(CAST(:tables AS text[]) AS regclass[])) AND grantee <> relowner
""")
_LOAD = tuple(
    map(
        text,
        (
            f"""
            INSERT INTO search_documents_next ({DOCUMENT_COLUMNS})
            SELECT {DOCUMENT_COLUMNS} FROM search_staging
            """,
            f"""
            INSERT INTO {_LOADED_TEXTS} (file_id, owner_id, quality, words)
            SELECT file_id, owner_id, quality, {WORDS} FROM search_staging
            """,
            """
            INSERT INTO search_vectors_next (file_id, owner_id, embedding_version, embedding)
            SELECT file_id, owner_id, embedding_version, embedding
            FROM search_staging_vectors JOIN search_staging USING (file_id)
            """,
            """
            INSERT INTO search_blocks_next (file_id, embedding_version, blocks)
            SELECT file_id, embedding_version, blocks
            FROM search_staging_vectors JOIN search_staging USING (file_id)
            WHERE blocks IS NOT NULL
            """,
        ),
    )
)
_SORT_TEXTS = text(f"""
INSERT INTO search_texts_next (file_id, owner_id, quality, words)
SELECT file_id, owner_id, quality, words FROM {_LOADED_TEXTS} ORDER BY quality DESC, file_id
""")
_DROP_LOADED = text(f"DROP TABLE {_LOADED_TEXTS}")
_INDEXES = text("""
SELECT t.relname AS "table", i.relname AS name, pg_get_indexdef(i.oid) AS definition,
       c.conname IS NOT NULL AS is_key
FROM pg_index JOIN pg_class AS i ON i.oid = indexrelid JOIN pg_class AS t ON t.oid = indrelid
LEFT JOIN pg_constraint AS c ON c.conindid = i.oid AND c.contype IN ('p', 'u')
WHERE t.oid = ANY(CAST(CAST(:tables AS text[]) AS regclass[])) AND indisvalid
ORDER BY array_position(CAST(:tables AS text[]), CAST(t.relname AS text)), NOT indisprimary,
         i.relname
""")
_DEFINITION = re.compile(r"^CREATE (UNIQUE )?INDEX \S+ ON \S+ ", re.ASCII)
_HNSW_OPTIONS = re.compile(r" WITH \([^)]*\)")

_COPY_CHANGED = tuple(
    text(statement)
    for statement in (
        *(f"DELETE FROM {table}_next WHERE file_id = ANY(:ids)" for table in TABLES),
        *(
            f"INSERT INTO {table}_next SELECT * FROM {table} WHERE file_id = ANY(:ids)"
            for table in ("search_texts", "search_blocks", "search_documents")
        ),
        # A graph that is built already would take milliseconds for each.
        *(
            f"INSERT INTO search_vectors_fresh_next SELECT * FROM {table} "
            "WHERE file_id = ANY(:ids) ON CONFLICT (file_id) DO NOTHING"
            for table in ("search_vectors_fresh", "search_vectors")
        ),
    )
)


@dataclass(frozen=True, slots=True)
class NextIndex:
    """An index that the next generation needs, and the statement that makes it."""

    table: str
    name: str
    statement: str


async def drop_next(session: AsyncSession) -> None:
    """Drop what an earlier rebuild has left; harmless where there is nothing."""
    await session.execute(_DROP)


async def create_next(session: AsyncSession) -> None:
    """Make the next tables, empty and without indexes."""
    for statement in _CREATE:
        await session.execute(statement)
    for grant in await session.scalars(_GRANTS, {"tables": list(TABLES)}):
        await session.execute(text(grant))


async def load_next(session: AsyncSession, files: Sequence[IndexedFile]) -> None:
    """Add files that the next generation does not have yet."""
    await stage_files(session, files)
    for statement in _LOAD:
        await session.execute(statement)


async def sort_texts(session: AsyncSession) -> None:
    """Write the words of all loaded files in descending quality."""
    await session.execute(_SORT_TEXTS)
    await session.execute(_DROP_LOADED)


async def list_indexes(session: AsyncSession, settings: SearchSettings) -> list[NextIndex]:
    """Return the indexes that the present tables have, for the next ones; keys come first.

    An HNSW index gets the parameters of the settings, which may have changed since.
    """
    rows = await session.execute(_INDEXES, {"tables": list(TABLES)})
    return [
        NextIndex(row.table, row.name, _statement(row.table, row.name, row.definition, settings))
        if not row.is_key
        else NextIndex(
            row.table,
            row.name,
            f"ALTER TABLE {row.table}_next ADD CONSTRAINT {row.name}_next PRIMARY KEY (file_id)",
        )
        for row in rows
    ]


async def build_index(session: AsyncSession, index: NextIndex, settings: SearchSettings) -> None:
    """Build one index, with the memory and the workers of the settings and without a time limit."""
    for limit in (
        "SET LOCAL statement_timeout = 0",
        f"SET LOCAL maintenance_work_mem = '{settings.maintenance_memory_mib:d}MB'",
        f"SET LOCAL max_parallel_maintenance_workers = {settings.build_workers:d}",
    ):
        await session.execute(text(limit))
    # Not through `text`, which would take a colon in a definition for a parameter.
    await (await session.connection()).exec_driver_sql(index.statement)


async def analyze_next(session: AsyncSession) -> None:
    """Gather the planner's statistics, so that the first query has a good plan."""
    for table in TABLES:
        await session.execute(text(f"ANALYZE {table}_next"))


async def copy_changed(session: AsyncSession, ids: Collection[UUID]) -> None:
    """Make the files in the next generation what they are in the present one."""
    values = {"ids": list(ids)}
    for statement in _COPY_CHANGED:
        await session.execute(statement, values)


async def lock_tables(session: AsyncSession, *, first: int, wait_ms: int) -> None:
    """Take the present tables for this transaction alone.

    Only the first is waited for. Who holds a table that this wants next may want one that this
    holds: by giving up well before deadlock_timeout (1 s), the queries of others never fail.

    Args:
        session: that of the switch.
        first: place of the table that is locked first; another in each attempt, so that each
            gets its long wait. Longer than deadlock_timeout, it makes an autovacuum give way.
        wait_ms: for that first table.

    Raises:
        TransientError: they were not free in time; queries go on.
    """
    start = first % len(TABLES)
    for table in TABLES[start:] + TABLES[:start]:
        await session.execute(text(f"SET LOCAL lock_timeout = {wait_ms:d}"))
        await session.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
        wait_ms = _NEXT_WAIT_MS


async def switch_tables(session: AsyncSession, indexes: Sequence[NextIndex]) -> None:
    """Put the next tables in the place of the present ones, which are dropped."""
    for table in TABLES:
        await session.execute(text(f"DROP TABLE {table}"))
        await session.execute(text(f"ALTER TABLE {table}_next RENAME TO {table}"))
    for index in indexes:
        # A key's constraint is renamed with its index.
        await session.execute(text(f"ALTER INDEX {index.name}_next RENAME TO {index.name}"))


def _statement(table: str, name: str, definition: str, settings: SearchSettings) -> str:
    rest = _DEFINITION.sub("", definition)
    if rest.startswith("USING hnsw"):
        options = f"m = {settings.hnsw_m:d}, ef_construction = {settings.hnsw_ef_construction:d}"
        rest = f"{_HNSW_OPTIONS.sub('', rest)} WITH ({options})"
    unique = "UNIQUE " if definition.startswith("CREATE UNIQUE") else ""
    return f"CREATE {unique}INDEX {name}_next ON {table}_next {rest}"
