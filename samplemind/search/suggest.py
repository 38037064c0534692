"""Completing what is being typed: words of the index, and whole names that begin so.

A prefix of up to five letters has its words ready in a table; longer ones are few enough to be read
from the vocabulary. Where too few of these may be told of one person's files, that person's own
words follow. Names are the best in quality of the first that begin so and may be told, and of that
person's own.

Invariant: work is bounded whatever is typed, and nobody is told of a file that they may not see.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    ScalarSelect,
    Select,
    SelectBase,
    cast,
    collate,
    func,
    literal_column,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects.postgresql import REGCONFIG
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from samplemind.errors import InvalidInputError
from samplemind.models.search_document import SearchDocument
from samplemind.search.filters import Filters
from samplemind.search.languages import TextConfiguration
from samplemind.search.query_limits import LIMITING, note_limits
from samplemind.search.text import split_words
from samplemind.search.vocabulary import CountedWord, fold, visible_words
from samplemind.settings import SearchSettings

MAX_SUGGESTIONS = 50
MAX_PREFIX_LENGTH = 100
_LETTERS = 5  # of the prefixes that have a row
_OWN_FILES = 1000  # whose words and names are read where the library's first ones may be too few
_NAMES_COMPARED = 100
_NAMES_PASSED = 2000  # before so many are found that may be told
_LOOKED_AT = 5  # times as many words as are wanted, where some may not be told
_LEAST_OF_A_NAME = 3  # characters; fewer begin too many names
NAME_LENGTH = 60  # characters of the wording that are indexed; see `text_indexes`

_TOLD_BY = (
    SearchDocument.file_id,
    SearchDocument.owner_id,
    SearchDocument.title,
    SearchDocument.wording,
    SearchDocument.quality,
)

# With a row for the limits even where no word is found.
_BY_PREFIX = text(f"""
SELECT found.*, {LIMITING} AS limits FROM (SELECT) AS always LEFT JOIN (
    SELECT word, documents, shared
    FROM search_prefixes, unnest(words) AS best (word) JOIN search_words USING (word)
    WHERE prefix = :prefix
) AS found ON true ORDER BY documents DESC, word
""")  # noqa: S608 - a constant's value
_BY_RANGE = text(f"""
SELECT found.*, {LIMITING} AS limits FROM (SELECT) AS always LEFT JOIN (
    SELECT word, documents, shared FROM search_words
    WHERE word ~>=~ :prefix AND word ~<~ :after
    ORDER BY (CASE WHEN CAST(:everything AS boolean) THEN documents ELSE shared END) DESC,
             documents DESC, word LIMIT :limit
) AS found ON true
ORDER BY (CASE WHEN CAST(:everything AS boolean) THEN documents ELSE shared END) DESC,
         documents DESC, word
""")  # noqa: S608 - a constant's value


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
    before, _, last = typed.rpartition(" ")
    words = await _words(session, last, filters, settings, limit)
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
    session: AsyncSession, prefix: str, filters: Filters, settings: SearchSettings, limit: int
) -> list[CountedWord]:
    is_ready = len(prefix) <= _LETTERS and limit <= 10
    words = await _known_words(session, prefix, filters, settings, None if is_ready else limit)
    if len(words) >= limit or _whose(filters) is None:
        return words[:limit]
    # The first words of the whole library say little of one person's: of these the rarer are
    # looked at too, and those of the person's own files.
    found = {word.text: word for word in words}
    if is_ready:
        for word in await _known_words(session, prefix, filters, settings, limit):
            found.setdefault(word.text, word)
    if len(found) < limit:
        for text_, documents in await session.execute(_own_words(prefix, filters, limit)):
            found.setdefault(text_, CountedWord(text_, documents, 0))
    return list(found.values())[:limit]


async def _known_words(
    session: AsyncSession,
    prefix: str,
    filters: Filters,
    settings: SearchSettings,
    limit: int | None,
) -> list[CountedWord]:
    """Return the vocabulary's words that may be told; no limit: those that stand ready."""
    timeout_ms = settings.statement_timeout_ms
    parameters: dict[str, Any] = {"prefix": prefix, "timeout_ms": str(timeout_ms)}
    if limit is not None:
        # Some of them are not told to everybody.
        looked_at = limit if _sees_all(filters) else _LOOKED_AT * limit
        parameters |= {
            "after": _after(prefix),
            "everything": filters.everything,
            "limit": looked_at,
        }
    rows = await session.execute(_BY_PREFIX if limit is None else _BY_RANGE, parameters)
    words = [
        CountedWord(row.word, row.documents, row.shared) for row in rows if row.word is not None
    ]
    note_limits(session, timeout_ms=timeout_ms)
    return await visible_words(session, words, filters, settings.text_configuration)


def _sees_all(filters: Filters) -> bool:
    return filters.everything and filters.owner_id is None


def _whose(filters: Filters) -> UUID | None:
    return filters.owner_id or filters.viewer_id


def _own_files(filters: Filters) -> CTE:
    """Return the query for an owner's, or else the viewer's, first files, if they may be told."""
    first = (
        select(*_TOLD_BY)
        .where(SearchDocument.owner_id == _whose(filters))
        .limit(_OWN_FILES)
        .subquery()
    )
    return (
        select(first)
        .where(*filters.visible(first.c.owner_id, first.c.file_id))
        .cte("files")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )


def _own_words(prefix: str, filters: Filters, limit: int) -> Select[Any]:
    files = _own_files(filters)
    configuration = cast(TextConfiguration.SIMPLE.value, REGCONFIG)
    lexemes = func.unnest(func.tsvector_to_array(func.to_tsvector(configuration, files.c.wording)))
    words = select(lexemes.label("word")).subquery("words")
    return (
        select(words.c.word, func.count())
        .where(words.c.word.startswith(prefix, autoescape=True), words.c.word.op("!~")("^[0-9]+$"))
        .group_by(words.c.word)
        .order_by(func.count().desc(), words.c.word)
        .limit(limit)
    )


async def _names(session: AsyncSession, typed: str, filters: Filters, limit: int) -> Sequence[str]:
    if len(typed) < _LEAST_OF_A_NAME:
        return ()
    return list(await session.scalars(_names_statement(typed[:NAME_LENGTH], filters, limit)))


def _names_statement(typed: str, filters: Filters, limit: int) -> Select[Any]:
    passed = _first_names(typed, filters)
    told = (
        select(passed.c.title, passed.c.quality)
        .where(*filters.visible(passed.c.owner_id, passed.c.file_id))
        .limit(_NAMES_COMPARED)
        .cte("told")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    names: SelectBase = select(told)
    if _whose(filters) is not None:
        own = _own_files(filters)
        name = _name(own.c.wording)
        # One person's few may lie behind very many of others.
        of_own = select(own.c.title, own.c.quality).where(
            _count(told) < _NAMES_COMPARED,
            _count(passed) >= _NAMES_PASSED,
            name >= typed,
            name < _after(typed),
        )
        names = union_all(names, of_own)
    first = names.subquery()
    best = func.max(first.c.quality)
    return select(first.c.title).group_by(first.c.title).order_by(best.desc()).limit(limit)


def _count(rows: CTE) -> ScalarSelect[int]:
    return select(func.count()).select_from(rows).scalar_subquery()


def _first_names(typed: str, filters: Filters) -> CTE:
    """Return the query for the files, whoever's they are, in the order of the index."""
    name = _name(SearchDocument.wording)
    return (
        select(*_TOLD_BY)
        .where(name >= typed, name < _after(typed))
        .order_by(name)
        .limit(_NAMES_COMPARED if _sees_all(filters) else _NAMES_PASSED)
        .cte("passed")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )


def _name(wording: ColumnElement[str] | InstrumentedAttribute[str]) -> ColumnElement[str]:
    """Return a file's name as it is completed: the start of its wording, in small letters."""
    start = func.left(wording, literal_column(str(NAME_LENGTH)))
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
