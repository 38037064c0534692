"""Counting the words of the index: what plans, corrections and suggestions go by.

Invariant: the tables change row by row in one transaction, only where a count did, so that no
query waits and none meets an empty vocabulary. A word's `shared` counts files without an owner
alone: those that everybody may see, and who may see any other file changes from hour to hour.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.search.languages import TextConfiguration

PREFIX_LENGTH = 5
WORDS_OF_A_PREFIX = 10

# "vocabul" in ASCII: any number does that nobody else locks in this database.
_LOCK = text(f"SELECT pg_advisory_xact_lock({0x766F636162756C})")
# Reading a million text vectors takes longer than a query of a service may.
_PATIENCE = text("SET LOCAL statement_timeout = '15min'")
_MEMORY = text("SET LOCAL work_mem = '128MB'")

_COUNT_LEXEMES = text("""
CREATE TEMPORARY TABLE search_lexemes_counted ON COMMIT DROP AS
SELECT word AS lexeme, ndoc AS documents FROM ts_stat('SELECT words FROM search_texts')
""")
_WORDINGS = f"SELECT to_tsvector('{TextConfiguration.SIMPLE.value}', wording) FROM search_documents"  # noqa: S608 - a constant's value
# Numbers are found by any search, but nobody means another number by a typing error.
_COUNT_WORDS = text(f"""
CREATE TEMPORARY TABLE search_words_counted ON COMMIT DROP AS
SELECT word, sum(ndoc)::integer AS documents,
       coalesce(sum(ndoc) FILTER (WHERE is_shared), 0)::integer AS shared
FROM (
    SELECT word, ndoc, true AS is_shared FROM ts_stat($${_WORDINGS} WHERE owner_id IS NULL$$)
    UNION ALL
    SELECT word, ndoc, false FROM ts_stat($${_WORDINGS} WHERE owner_id IS NOT NULL$$)
) AS counted
WHERE word !~ '^[0-9]+$' AND length(word) <= 64
GROUP BY word
""")  # noqa: S608 - constants' values
_COUNT_PREFIXES = text(f"""
CREATE TEMPORARY TABLE search_prefixes_counted ON COMMIT DROP AS
SELECT prefix, array_agg(word ORDER BY place) AS words
FROM (
    SELECT left(word, letters) AS prefix, word, shared,
           row_number() OVER (
               PARTITION BY left(word, letters) ORDER BY documents DESC, word) AS place,
           row_number() OVER (
               PARTITION BY left(word, letters) ORDER BY shared DESC, word) AS shared_place
    FROM search_words_counted, generate_series(1, {PREFIX_LENGTH}) AS letters
    WHERE length(word) >= letters
) AS ranked
WHERE place <= {WORDS_OF_A_PREFIX} OR (shared_place <= {WORDS_OF_A_PREFIX} AND shared > 0)
GROUP BY prefix
""")  # noqa: S608 - constants' values


def _replacement(table: str, key: str, *values: str) -> tuple[TextClause, TextClause]:
    counted = f"{table}_counted"
    columns = ", ".join((key, *values))
    present, excluded = (
        ", ".join(f"{row}.{value}" for value in values) for row in ("present", "excluded")
    )
    return (
        text(f"""
        INSERT INTO {table} AS present ({columns}) SELECT {columns} FROM {counted}
        ON CONFLICT ({key}) DO UPDATE SET ({", ".join(values)}) = ROW({excluded})
        WHERE ({present}) IS DISTINCT FROM ({excluded})
        """),  # noqa: S608 - of the names below
        text(f"""
        DELETE FROM {table} AS present WHERE NOT EXISTS (
            SELECT FROM {counted} AS counted WHERE counted.{key} = present.{key})
        """),  # noqa: S608 - of the names below
    )


Progress = Callable[[int, int], None]

_STATEMENTS = (
    _PATIENCE,
    _MEMORY,
    _COUNT_LEXEMES,
    _COUNT_WORDS,
    _COUNT_PREFIXES,
    *_replacement("search_lexemes", "lexeme", "documents"),
    *_replacement("search_words", "word", "documents", "shared"),
    *_replacement("search_prefixes", "prefix", "words"),
)
_SIZES = text("""
SELECT (SELECT count(*) FROM search_lexemes), (SELECT count(*) FROM search_words),
       (SELECT count(*) FROM search_prefixes)
""")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """How many lexemes, words and prefixes the index has."""

    lexemes: int
    words: int
    prefixes: int


async def has_vocabulary(session: AsyncSession) -> bool:
    """Return whether words were counted since the index was empty."""
    return bool(await session.scalar(text("SELECT EXISTS (SELECT FROM search_words)")))


async def refresh_vocabulary(
    session: AsyncSession, progress: Progress = lambda _done, _total: None
) -> Vocabulary:
    """Count all words anew, in the caller's transaction; a second caller waits for the first.

    Args:
        session: the transaction to read and write in.
        progress: called after each step with how many are done, and how many there are.
    """
    await session.execute(_LOCK)
    for done, statement in enumerate(_STATEMENTS, 1):
        await session.execute(statement)
        progress(done, len(_STATEMENTS))
    lexemes, words, prefixes = (await session.execute(_SIZES)).one()
    return Vocabulary(lexemes, words, prefixes)
