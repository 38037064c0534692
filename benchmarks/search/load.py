"""Loading a library straight into the index's tables, as a rebuild would leave them.

Indexes are dropped before and made after: that is how a million files are there in minutes. Words
are split by the platform's own code, and the tables are filled in descending quality.
"""

import io
import time
from collections.abc import Iterator
from math import log1p
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from benchmarks.search.sounds import DIMENSIONS, EMBEDDING_VERSION, Chunk, Library, Sound
from samplemind.search.text import split_words

_TABLES = ("search_documents", "search_texts", "search_vectors")
_STAGING = "bench_sounds"
_COLUMNS = {
    "file_id": "uuid",
    "owner_id": "uuid",
    "revision": "int8",
    "path": "text",
    "title": "text",
    "pack": "text",
    "tags": "text[]",
    "kind": "text",
    "tempo_bpm": "float4",
    "key": "text",
    "duration_s": "float4",
    "loudness_lufs": "float4",
    "embedding_version": "text",
    "artist": "text",
    "description": "text",
    "format": "text",
    "language": "text",
    "wording": "text",
    "quality": "float4",
    "created_at": "timestamptz",
    "content_hash": "text",
    "index_version": "int2",
    "fingerprint": "bytea",
}
_WORDS = {"words_a": "text", "words_b": "text", "words_c": "text", "words_d": "text"}
_FILL_DOCUMENTS = f"""
INSERT INTO search_documents ({", ".join(_COLUMNS)})
SELECT {", ".join(_COLUMNS)} FROM {_STAGING} ORDER BY quality DESC
"""  # noqa: S608  # every name in it is a constant above
_FILL_TEXTS = f"""
INSERT INTO search_texts (file_id, owner_id, quality, words)
SELECT file_id, owner_id, quality,
       setweight(to_tsvector('samplemind', words_a), 'A') ||
       setweight(to_tsvector('samplemind', words_b), 'B') ||
       setweight(to_tsvector('samplemind', words_c), 'C') ||
       setweight(to_tsvector('samplemind', words_d), 'D')
FROM {_STAGING} ORDER BY quality DESC, file_id
"""  # noqa: S608  # as above
_MAINTENANCE_MEMORY = "2GB"
_MOST_PLAYS = 1_000_000
_DAYS_OF_RECENCY = 2_000


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
    columns = {**_COLUMNS, **_WORDS}
    fields = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    connection.execute(f"DROP TABLE IF EXISTS {_STAGING}")
    connection.execute(f"CREATE UNLOGGED TABLE {_STAGING} ({fields})".encode())
    for chunk in library:
        with connection.cursor().copy(
            f"COPY {_STAGING} FROM STDIN (FORMAT binary)".encode()
        ) as copy:
            copy.set_types(list(columns.values()))
            for values in _rows(chunk):
                copy.write_row(values)
        with connection.cursor().copy("COPY search_vectors FROM STDIN (FORMAT binary)") as copy:
            copy.write(_vectors(chunk))


def _fill(connection: psycopg.Connection) -> None:
    connection.execute(_FILL_DOCUMENTS.encode())
    connection.execute(_FILL_TEXTS.encode())
    connection.execute(f"DROP TABLE {_STAGING}")


def _rows(chunk: Chunk) -> Iterator[tuple[Any, ...]]:
    for sound in chunk.sounds:
        title, tags = split_words(sound.title), " ".join(sound.tags)
        pack = f"{split_words(sound.pack)} {sound.artist}"
        spoken = [sound.kind.replace("_", " ")]
        spoken += [f"{round(sound.tempo_bpm)} bpm"] if sound.tempo_bpm else []
        spoken += [split_words(sound.key)] if sound.key else []
        yield (
            sound.id,
            sound.owner_id,
            sound.revision,
            sound.path,
            sound.title,
            sound.pack,
            sound.tags,
            sound.kind,
            sound.tempo_bpm,
            sound.key,
            sound.duration_s,
            sound.loudness_lufs,
            EMBEDDING_VERSION,
            sound.artist,
            sound.description,
            sound.format,
            "samplemind",
            f"{title} {tags} {pack}",
            _quality(sound),
            sound.created_at,
            sound.content_hash,
            1,
            sound.id.bytes,
            title,
            f"{tags} {' '.join(spoken)}",
            pack,
            f"{sound.description or ''} {split_words(sound.path)}",
        )


def _quality(sound: Sound) -> float:
    # Spread over 0..1 as the platform's own is: how much is known, how often played, how new.
    known = sum(bool(value) for value in (sound.key, sound.tempo_bpm, sound.description)) / 3
    played = min(1.0, log1p(sound.plays) / log1p(_MOST_PLAYS))
    age = (sound.created_at.timestamp() / 86_400) % _DAYS_OF_RECENCY / _DAYS_OF_RECENCY
    return 0.4 * known + 0.4 * played + 0.2 * age


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
