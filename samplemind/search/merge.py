"""Merging files' rows into the index: COPY into staging tables, then one statement a table.

Invariants: all tables change in the caller's one transaction. A file is changed only by a higher
version of itself, or by the same version whose content is made differently. Its vector is in
exactly one of `search_vectors` and `search_vectors_fresh`, and stays where it is while it does
not change: an unchanged row costs no write.

Rows are locked in the order of their ids, documents first; the lock on the document is what makes
two writers of a file take turns.
"""

import struct
from collections.abc import Collection, Iterator, Sequence
from typing import Any, cast
from uuid import UUID

import numpy as np
import psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.postgres_errors import translated
from samplemind.models.search_vector import EMBEDDING_DIMENSIONS
from samplemind.search.rows import COLUMNS, DocumentRow, IndexedFile

_WORDS = ("title_words", "tag_words", "name_words", "path_words")
_KEPT = [name for name in COLUMNS if name not in _WORDS]
DOCUMENT_COLUMNS = ", ".join(_KEPT)
"""The columns that `search_documents` has from the staging table; `indexed_at` is its own."""

WORDS = " || ".join(
    f"setweight(to_tsvector(language::regconfig, {name}), '{weight}')"
    for name, weight in zip(_WORDS, "ABCD", strict=True)
)
"""The text vector of a staged row."""

_CHANGED = [name for name in _KEPT if name != "file_id"]
_VERSION = ("created_at", "revision", "index_version")


def _row(table: str, names: Sequence[str]) -> str:
    return f"({', '.join(f'{table}.{name}' for name in names)})"


_CREATE_STAGING = (
    text(
        "CREATE TEMPORARY TABLE search_staging "
        f"({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())}) ON COMMIT DROP"
    ),
    text(
        "CREATE TEMPORARY TABLE search_staging_vectors (file_id uuid, "
        f"embedding halfvec({EMBEDDING_DIMENSIONS}), blocks bytea) ON COMMIT DROP"
    ),
)
_DROP_STAGING = text("DROP TABLE IF EXISTS search_staging, search_staging_vectors")
_COPY = f"COPY search_staging ({', '.join(COLUMNS)}) FROM STDIN"
_COPY_VECTORS = (
    "COPY search_staging_vectors (file_id, embedding, blocks) FROM STDIN (FORMAT BINARY)"
)

# What did not change is not even locked: a lock is a write too. What is not written leaves the
# staging table, so that the statements after this one follow it.
_MERGE_DOCUMENTS = text(f"""
WITH written AS (
    INSERT INTO search_documents AS present ({DOCUMENT_COLUMNS}, indexed_at)
    SELECT {DOCUMENT_COLUMNS}, statement_timestamp()
    FROM search_staging AS staged
    WHERE NOT EXISTS (
        SELECT FROM search_documents AS present
        WHERE present.file_id = staged.file_id AND present.fingerprint = staged.fingerprint
          AND {_row("present", _VERSION)} = {_row("staged", _VERSION)})
    ORDER BY file_id
    ON CONFLICT (file_id) DO UPDATE
    SET {", ".join(f"{name} = excluded.{name}" for name in _CHANGED)},
        indexed_at = excluded.indexed_at
    WHERE {_row("present", _VERSION)} < {_row("excluded", _VERSION)}
       OR ({_row("present", _VERSION)} = {_row("excluded", _VERSION)}
           AND present.fingerprint <> excluded.fingerprint)
    RETURNING file_id
)
DELETE FROM search_staging WHERE file_id NOT IN (SELECT file_id FROM written)
""")  # noqa: S608 - every name in it is a constant above
_WRITTEN = text("SELECT file_id FROM search_staging")
_DROP_OTHER_VECTORS = text(
    "DELETE FROM search_staging_vectors WHERE file_id NOT IN (SELECT file_id FROM search_staging)"
)
_MERGE_TEXTS = text(f"""
INSERT INTO search_texts AS present (file_id, owner_id, quality, words)
SELECT file_id, owner_id, quality, {WORDS}
FROM search_staging ORDER BY file_id
ON CONFLICT (file_id) DO UPDATE
SET owner_id = excluded.owner_id, quality = excluded.quality, words = excluded.words
WHERE (present.owner_id, present.quality, present.words)
      IS DISTINCT FROM (excluded.owner_id, excluded.quality, excluded.words)
""")  # noqa: S608 - every name in it is a constant above
# A fold that is moving one of these vectors is waited for, and none takes them afterwards.
_LOCK_FRESH = text("""
SELECT FROM search_vectors_fresh
WHERE file_id IN (SELECT file_id FROM search_staging) ORDER BY file_id FOR UPDATE
""")
_DELETE_VECTORS = tuple(
    text(f"""
    DELETE FROM {table} AS present USING search_staging AS staged
    WHERE present.file_id = staged.file_id AND NOT EXISTS (
        SELECT FROM search_staging_vectors AS vector
        WHERE vector.file_id = present.file_id AND vector.embedding = present.embedding
          AND staged.embedding_version = present.embedding_version
          AND staged.owner_id IS NOT DISTINCT FROM present.owner_id)
    """)  # noqa: S608 - of the two names below
    for table in ("search_vectors_fresh", "search_vectors")
)
_INSERT_VECTORS = text("""
INSERT INTO search_vectors_fresh (file_id, owner_id, embedding_version, embedding)
SELECT file_id, staged.owner_id, staged.embedding_version, vector.embedding
FROM search_staging_vectors AS vector JOIN search_staging AS staged USING (file_id)
WHERE NOT EXISTS (SELECT FROM search_vectors AS main WHERE main.file_id = vector.file_id)
ON CONFLICT (file_id) DO NOTHING
""")
_DELETE_BLOCKS = text("""
DELETE FROM search_blocks USING search_staging AS staged
WHERE search_blocks.file_id = staged.file_id AND staged.file_id NOT IN (
    SELECT file_id FROM search_staging_vectors WHERE blocks IS NOT NULL)
""")
_MERGE_BLOCKS = text("""
INSERT INTO search_blocks AS present (file_id, embedding_version, blocks)
SELECT file_id, staged.embedding_version, vector.blocks
FROM search_staging_vectors AS vector JOIN search_staging AS staged USING (file_id)
WHERE vector.blocks IS NOT NULL ORDER BY file_id
ON CONFLICT (file_id) DO UPDATE
SET embedding_version = excluded.embedding_version, blocks = excluded.blocks
WHERE (present.embedding_version, present.blocks)
      IS DISTINCT FROM (excluded.embedding_version, excluded.blocks)
""")
_FOLLOW_DOCUMENTS = (
    _DROP_OTHER_VECTORS,
    _MERGE_TEXTS,
    _LOCK_FRESH,
    *_DELETE_VECTORS,
    _INSERT_VECTORS,
    _DELETE_BLOCKS,
    _MERGE_BLOCKS,
)

# Fresh before main: a vector that a fold moves meanwhile is found in the one or in the other.
_TABLES_OF_A_FILE = (
    "search_texts",
    "search_vectors_fresh",
    "search_vectors",
    "search_blocks",
)
_LOCK_DOCUMENTS = text(
    "SELECT FROM search_documents WHERE file_id = ANY(:ids) ORDER BY file_id FOR UPDATE"
)
_REMOVE = tuple(
    text(f"DELETE FROM {table} WHERE file_id = ANY(:ids)")  # noqa: S608 - of the names above
    for table in _TABLES_OF_A_FILE
)
_REMOVE_DOCUMENTS = text("DELETE FROM search_documents WHERE file_id = ANY(:ids)")

# PostgreSQL's binary COPY: a signature, flags and no extension; each row with its number of
# fields, each field with its length; the end. Manual, "COPY", section "Binary Format".
_BINARY_HEAD = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_BINARY_END = struct.pack(">h", -1)
_FIELDS = struct.pack(">h", 3)
_ID_LENGTH = struct.pack(">i", 16)
# pgvector sends a halfvec as its dimensions, an unused number, and the values.
_VECTOR_HEAD = struct.pack(">ihh", 4 + 2 * EMBEDDING_DIMENSIONS, EMBEDDING_DIMENSIONS, 0)
_NULL = struct.pack(">i", -1)


async def merge_files(session: AsyncSession, files: Sequence[IndexedFile]) -> list[UUID]:
    """Write the files, each at most once in `files`; return the ids of those that changed.

    The caller has joined the writers (`samplemind.search.journal`).
    """
    if not files:
        return []
    await stage_files(session, files)
    await session.execute(_MERGE_DOCUMENTS)
    written = list(await session.scalars(_WRITTEN))
    if written:
        for statement in _FOLLOW_DOCUMENTS:
            await session.execute(statement)
    return written


async def stage_files(session: AsyncSession, files: Sequence[IndexedFile]) -> None:
    """Copy the files into `search_staging` and `search_staging_vectors`, gone at the commit."""
    # Earlier ones of the same transaction.
    await session.execute(_DROP_STAGING)
    for create in _CREATE_STAGING:
        await session.execute(create)
    await _copy(session, files)


async def remove_files(session: AsyncSession, ids: Collection[UUID]) -> int:
    """Take the files out of every table; return how many were in the index.

    The caller has joined the writers.
    """
    if not ids:
        return 0
    values = {"ids": list(ids)}
    await session.execute(_LOCK_DOCUMENTS, values)
    for statement in _REMOVE:
        await session.execute(statement, values)
    removed = await session.execute(_REMOVE_DOCUMENTS, values)
    return int(removed.rowcount)  # type: ignore[attr-defined]


async def _copy(session: AsyncSession, files: Sequence[IndexedFile]) -> None:
    connection = await session.connection()
    raw = await connection.get_raw_connection()
    driver = cast("psycopg.AsyncConnection[Any]", raw.driver_connection)
    try:
        async with driver.cursor() as cursor:
            async with cursor.copy(_COPY.encode()) as copy:
                copy.set_types(list(COLUMNS.values()))
                for file in files:
                    await copy.write_row(file.row)
            async with cursor.copy(_COPY_VECTORS.encode()) as copy:
                await copy.write(b"".join(_binary_vectors(files)))
    except psycopg.Error as error:
        # The driver is used past SQLAlchemy, which translates elsewhere.
        known = translated(error, connection_lost=driver.closed)
        if known is None:
            raise
        raise known from error


def _binary_vectors(files: Sequence[IndexedFile]) -> Iterator[bytes]:
    yield _BINARY_HEAD
    for file in files:
        if file.embedding is None:
            continue
        numbers = np.frombuffer(file.embedding, dtype="<f4").astype(">f2").tobytes()
        yield _FIELDS + _ID_LENGTH + _id(file.row) + _VECTOR_HEAD + numbers
        if file.blocks is None:
            yield _NULL
        else:
            yield struct.pack(">i", len(file.blocks)) + file.blocks
    yield _BINARY_END


def _id(row: DocumentRow) -> bytes:
    return row.file_id.bytes
