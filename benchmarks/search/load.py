"""Loading a library straight into the index's tables, as a rebuild would leave them.

Indexes are dropped before and made after: that is how a million files are there in minutes. Rows
are made by the platform's own code, and the tables are filled in descending quality.
"""

import io
import time

import numpy as np
import psycopg
from psycopg import sql

from benchmarks.search.index_rows import index_chunk
from benchmarks.search.sounds import DIMENSIONS, EMBEDDING_VERSION, Chunk, Library
from samplemind.search.rows import COLUMNS

_TABLES = ("search_documents", "search_texts", "search_vectors")
_STAGING = "bench_sounds"
_DOCUMENT = ", ".join(name for name in COLUMNS if not name.endswith("_words"))
_FILL_DOCUMENTS = f"""
INSERT INTO search_documents ({_DOCUMENT})
SELECT {_DOCUMENT} FROM {_STAGING} ORDER BY quality DESC
"""  # noqa: S608  # every name in it is a constant above
_FILL_TEXTS = f"""
INSERT INTO search_texts (file_id, owner_id, quality, words)
SELECT file_id, owner_id, quality,
       setweight(to_tsvector('samplemind', title_words), 'A') ||
       setweight(to_tsvector('samplemind', tag_words), 'B') ||
       setweight(to_tsvector('samplemind', name_words), 'C') ||
       setweight(to_tsvector('samplemind', path_words), 'D')
FROM {_STAGING} ORDER BY quality DESC, file_id
"""  # noqa: S608  # as above
_MAINTENANCE_MEMORY = "2GB"


def load(url: str, library: Library) -> float:
    """Fill the empty index of a migrated database; return the seconds it took."""
    started = time.perf_counter()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET statement_timeout = 0")
        connection.execute("SET synchronous_commit = off")
        connection.execute(f"SET maintenance_work_mem = '{_MAINTENANCE_MEMORY}'")
        connection.execute("SET max_parallel_maintenance_workers = 2")
        indexes = _drop_indexes(connection)
        _stage(connection, library)
        _fill(connection)
        for definition in indexes:
            connection.execute(definition.encode())
        for table in _TABLES:
            connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(table)))
    return time.perf_counter() - started


def _drop_indexes(connection: psycopg.Connection) -> list[str]:
    found = connection.execute(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index "
        "WHERE indrelid = ANY(%s::regclass[]) AND NOT indisunique",
        (list(_TABLES),),
    ).fetchall()
    for name, _ in found:
        connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
    return [definition for _, definition in found]


def _stage(connection: psycopg.Connection, library: Library) -> None:
    fields = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    connection.execute(f"DROP TABLE IF EXISTS {_STAGING}")
    connection.execute(f"CREATE UNLOGGED TABLE {_STAGING} ({fields})".encode())
    for chunk in library:
        with connection.cursor().copy(
            f"COPY {_STAGING} FROM STDIN (FORMAT binary)".encode()
        ) as copy:
            copy.set_types(list(COLUMNS.values()))
            for file in index_chunk(chunk, blocks=False):
                copy.write_row(file.row)
        with connection.cursor().copy("COPY search_vectors FROM STDIN (FORMAT binary)") as copy:
            copy.write(_vectors(chunk))


def _fill(connection: psycopg.Connection) -> None:
    connection.execute(_FILL_DOCUMENTS.encode())
    connection.execute(_FILL_TEXTS.encode())
    connection.execute(f"DROP TABLE {_STAGING}")


def _vectors(chunk: Chunk) -> bytes:
    """Return the rows of `search_vectors` in the format of a binary COPY."""
    version = EMBEDDING_VERSION.encode()
    halves = chunk.vectors.astype(">f2")
    head = np.array([DIMENSIONS, 0], ">i2").tobytes()
    size = (4 + 2 * DIMENSIONS).to_bytes(4, "big")
    buffer = io.BytesIO()
    buffer.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
    for sound, half in zip(chunk.sounds, halves, strict=True):
        owner = b"\0\0\0\x10" + sound.owner_id.bytes if sound.owner_id else b"\xff" * 4
        buffer.write(b"\0\x04\0\0\0\x10" + sound.id.bytes + owner)
        buffer.write(len(version).to_bytes(4, "big") + version + size + head + half.tobytes())
    buffer.write(b"\xff\xff")
    return buffer.getvalue()
