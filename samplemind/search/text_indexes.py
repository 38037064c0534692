"""The indexes that text search needs, made where they are missing.

Migrations make them for a new database; this mends one where an index was dropped or was left
invalid by a failed build.

Invariant: idempotent, and no writer waits: each is built CONCURRENTLY.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import psycopg
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.postgres_errors import translated

TEXT_INDEXES: dict[str, str] = {
    "ix_search_texts_words": "search_texts USING gin (words)",
    "ix_search_texts_owner_id_words": "search_texts USING gin (owner_id, words)",
    "ix_search_texts_quality": "search_texts (quality, file_id)",
    "ix_search_documents_name": ('search_documents (lower(left(wording, 60)) COLLATE "C")'),
    "ix_search_documents_owner_id_name": (
        'search_documents (owner_id, lower(left(wording, 60)) COLLATE "C")'
    ),
    "ix_search_words_word_trgm": "search_words USING gin (word gin_trgm_ops)",
    "ix_search_words_word_prefix": (
        "search_words (word text_pattern_ops) INCLUDE (documents, shared)"
    ),
}
"""Name → what follows ON."""

_VALID = """
SELECT relname FROM pg_class JOIN pg_index ON indexrelid = pg_class.oid
WHERE relname = ANY(%s) AND indisvalid AND relnamespace = current_schema()::regnamespace
"""


async def create_text_indexes(session: AsyncSession) -> list[str]:
    """Create the missing ones; return their names.

    Raises:
        TransientError: a statement met a time limit; calling again goes on.
    """
    async with outside_of_transactions(session) as connection:
        try:
            return await _create_missing(connection)
        except psycopg.Error as error:
            known = translated(error)
            if known is None:
                raise
            raise known from error


async def _create_missing(connection: "psycopg.AsyncConnection[Any]") -> list[str]:
    cursor = await connection.execute(_VALID, (list(TEXT_INDEXES),))
    present = {row[0] for row in await cursor.fetchall()}
    missing = [name for name in TEXT_INDEXES if name not in present]
    for name in missing:
        # A build that failed leaves an invalid index of that name.
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}".encode())
        await connection.execute(
            f"CREATE INDEX CONCURRENTLY {name} ON {TEXT_INDEXES[name]}".encode()
        )
    return missing


@asynccontextmanager
async def outside_of_transactions(
    session: AsyncSession,
) -> "AsyncIterator[psycopg.AsyncConnection[Any]]":
    """Give the session's own connection, on which CONCURRENTLY works, without a time limit."""
    await session.rollback()
    raw = await (await session.connection()).get_raw_connection()
    driver = cast("psycopg.AsyncConnection[Any]", raw.driver_connection)
    await driver.rollback()
    await driver.set_autocommit(True)
    try:
        await driver.execute("SET statement_timeout = 0")
        yield driver
    finally:
        await driver.execute("RESET statement_timeout")
        await driver.set_autocommit(False)
