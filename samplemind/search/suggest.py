"""Completing what is being typed: words of the index, and whole names that begin so.

A prefix of up to five letters has its words ready in a table; longer ones are few enough to be read
from the vocabulary. Where too few of these may be told of one person's files, that person's own
words follow.

Invariant: work is bounded whatever is typed, and nobody is told of a file that they may not see.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Select,
    cast,
    func,
    select,
    text,
    union,
)
from sqlalchemy.dialects.postgresql import REGCONFIG
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.errors import InvalidInputError
from samplemind.models.audio_collection import AudioCollection, AudioCollectionItem
from samplemind.models.search_document import SearchDocument
from samplemind.search.filters import Filters, in_public_collection
from samplemind.search.languages import TextConfiguration
from samplemind.search.names import end_of, find_names
from samplemind.search.query_limits import LIMITING, limit_queries, note_limits
from samplemind.search.text import split_words
from samplemind.search.vocabulary import CountedWord, fold, visible_words
from samplemind.settings import SearchSettings

MAX_SUGGESTIONS = 50
MAX_PREFIX_LENGTH = 100
_LETTERS = 5  # of the prefixes that have a row
_OWN_FILES = 1000  # whose words are read where the vocabulary's first ones are too few
_OWN_ASKED_ABOUT = 5000  # whether they are in a public collection
_LOOKED_AT = 5  # times as many words as are wanted, where some may not be told

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
    names = await find_names(session, typed, filters, limit)
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
    if filters.owner_id is not None and not filters.hides_nothing:
        # Of a word of the vocabulary, each of the owner's files that has it would be asked about.
        await limit_queries(session, timeout_ms=settings.statement_timeout_ms)
        return await _own_words(session, prefix, filters, limit)
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
        for word in await _own_words(session, prefix, filters, limit):
            found.setdefault(word.text, word)
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
            "after": end_of(prefix),
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


async def _own_words(
    session: AsyncSession, prefix: str, filters: Filters, limit: int
) -> list[CountedWord]:
    """Return the words of an owner's, or else the viewer's, first files."""
    rows = await session.execute(_own_words_statement(prefix, filters, limit))
    return [CountedWord(word, files, 0) for word, files in rows]


def _own_words_statement(prefix: str, filters: Filters, limit: int) -> Select[Any]:
    files = (
        _own_files(filters)
        .limit(_OWN_FILES)
        .cte("files")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    configuration = cast(TextConfiguration.SIMPLE.value, REGCONFIG)
    lexemes = func.unnest(func.tsvector_to_array(func.to_tsvector(configuration, files.c.wording)))
    # Few of the files have the letters at all, and to make their words is most of the work.
    letters = func.strpos(func.unaccent(func.lower(files.c.wording)), prefix)
    words = select(lexemes.label("word")).where(letters > 0).subquery("words")
    return (
        select(words.c.word, func.count())
        .where(words.c.word.startswith(prefix, autoescape=True), words.c.word.op("!~")("^[0-9]+$"))
        .group_by(words.c.word)
        .order_by(func.count().desc(), words.c.word)
        .limit(limit)
    )


def _own_files(filters: Filters) -> Select[Any]:
    """Return the query for (file_id, wording) of an owner's, or else the viewer's, files."""
    columns: list[Any] = [SearchDocument.file_id, SearchDocument.wording]
    own = select(*columns).where(SearchDocument.owner_id == _whose(filters))
    if filters.owner_id is None or filters.hides_nothing:
        return own
    # Hardly any of them may be public, so these are looked for in the owner's own collections too.
    first = own.limit(_OWN_ASKED_ABOUT).subquery()
    collected = (
        select(AudioCollectionItem.audio_file_id)
        .join(AudioCollection, AudioCollection.id == AudioCollectionItem.collection_id)
        .where(AudioCollection.owner_id == filters.owner_id, AudioCollection.is_public)
        .limit(_OWN_ASKED_ABOUT)
        .subquery()
    )
    both = union(
        select(first).where(in_public_collection(first.c.file_id)),
        own.join(collected, collected.c.audio_file_id == SearchDocument.file_id),
    )
    return select(both.subquery())
