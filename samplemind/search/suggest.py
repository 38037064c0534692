"""Completing what is being typed: words of the index, and whole names that begin so.

A prefix of up to five letters has its words ready in a table; longer ones are few enough to be read
from the vocabulary. Names are the best in quality of the first that begin so.

Invariant: work is bounded whatever is typed, and nobody is told of a file that they may not see.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, collate, func, literal_column, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.errors import InvalidInputError
from samplemind.models.search_document import SearchDocument
from samplemind.search.filters import Filters
from samplemind.search.query_limits import limit_queries
from samplemind.search.text import split_words
from samplemind.search.vocabulary import CountedWord, fold, visible_words
from samplemind.settings import SearchSettings

MAX_SUGGESTIONS = 50
MAX_PREFIX_LENGTH = 100
_LETTERS = 5  # of the prefixes that have a row
_NAMES_LOOKED_AT = 100
_LOOKED_AT = 5  # times as many words as are wanted, where some may not be told
_LEAST_OF_A_NAME = 3  # characters; fewer begin too many names
NAME_LENGTH = 60  # characters of the wording that are indexed; see `text_indexes`

_BY_PREFIX = text("""
SELECT word, documents, shared
FROM search_prefixes, unnest(words) AS best (word) JOIN search_words USING (word)
WHERE prefix = :prefix ORDER BY documents DESC, word
""")
_BY_RANGE = text("""
SELECT word, documents, shared FROM search_words
WHERE word ~>=~ :prefix AND word ~<~ :after
ORDER BY (CASE WHEN CAST(:everything AS boolean) THEN documents ELSE shared END) DESC,
         documents DESC, word LIMIT :limit
""")


class SuggestionKind(StrEnum):
    """What a suggestion completes to."""

    WORD = "word"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What the typed text may become.

    Attributes:
        text: the whole text, what was typed included.
        documents: how many files have the completed word, of those that everybody may see; none
            for a name, and where it is none of these.
    """

    text: str
    kind: SuggestionKind
    documents: int | None = None


async def suggest(
    session: AsyncSession,
    prefix: str,
    filters: Filters,
    *,
    settings: SearchSettings,
    limit: int = 10,
) -> tuple[Suggestion, ...]:
    """Return words and then names, popular ones first, `limit` of both together.

    Raises:
        InvalidInputError: nothing to complete, or a limit out of range.
    """
    if not 1 <= limit <= MAX_SUGGESTIONS:
        message = f"limit must be from 1 to {MAX_SUGGESTIONS}, not {limit}"
        raise InvalidInputError(message)
    if len(prefix) > MAX_PREFIX_LENGTH:
        message = f"at most {MAX_PREFIX_LENGTH} characters are completed, not {len(prefix)}"
        raise InvalidInputError(message)
    typed = fold(split_words(prefix))
    if not typed:
        message = "there is nothing to complete: type a letter or a digit"
        raise InvalidInputError(message)
    if not filters.everything:
        # Who may see what is looked up; all the rest is bounded by itself.
        await limit_queries(session, timeout_ms=settings.statement_timeout_ms)
    before, _, last = typed.rpartition(" ")
    words = await _words(session, last, filters, settings.text_configuration, limit)
    names = await _names(session, typed, filters, limit)
    suggestions = [
        Suggestion(f"{before} {word.text}".strip(), SuggestionKind.WORD, word.told_to(filters))
        for word in words
    ]
    # Half of the room is the names', as far as they fill it.
    room = max(limit - len(names), limit - limit // 2)
    suggestions = suggestions[:room]
    known = {suggestion.text for suggestion in suggestions}
    suggestions += [
        Suggestion(name, SuggestionKind.NAME) for name in names if fold(name) not in known
    ]
    return tuple(suggestions[:limit])


async def _words(
    session: AsyncSession, prefix: str, filters: Filters, configuration: str, limit: int
) -> list[CountedWord]:
    if len(prefix) <= _LETTERS and limit <= 10:
        rows = await session.execute(_BY_PREFIX, {"prefix": prefix})
    else:
        parameters = {
            "prefix": prefix,
            "after": _after(prefix),
            "everything": filters.everything,
            # Some of them are not told to everybody.
            "limit": limit if filters.everything else _LOOKED_AT * limit,
        }
        rows = await session.execute(_BY_RANGE, parameters)
    words = [CountedWord(*row) for row in rows]
    return (await visible_words(session, words, filters, configuration))[:limit]


async def _names(session: AsyncSession, typed: str, filters: Filters, limit: int) -> Sequence[str]:
    if len(typed) < _LEAST_OF_A_NAME:
        return ()
    return list(await session.scalars(_names_statement(typed[:NAME_LENGTH], filters, limit)))


def _names_statement(typed: str, filters: Filters, limit: int) -> Select[Any]:
    name = name_expression()
    first = (
        select(SearchDocument.title, SearchDocument.quality)
        .where(
            name >= typed,
            name < _after(typed),
            *filters.visible(SearchDocument.owner_id, SearchDocument.file_id),
        )
        .order_by(name)
        .limit(_NAMES_LOOKED_AT)
        .subquery()
    )
    best = func.max(first.c.quality)
    return select(first.c.title).group_by(first.c.title).order_by(best.desc()).limit(limit)


def name_expression() -> ColumnElement[str]:
    """Return a file's name as it is completed: the start of its wording, in small letters."""
    start = func.left(SearchDocument.wording, literal_column(str(NAME_LENGTH)))
    return collate(func.lower(start), "C")


def _after(prefix: str) -> str:
    # The least text, in order of code points, that does not begin with the prefix.
    for i in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[i]) + 1
        if code == 0xD800:
            code = 0xE000
        if code <= 0x10FFFF:
            return prefix[:i] + chr(code)
    return chr(0x10FFFF)
