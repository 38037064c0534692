"""Search by words.

Queries follow PostgreSQL's `websearch_to_tsquery`: words, "phrases", `or`, and a minus before what
must not be there. A file's score is its rank (title before tags before pack and artist before
description and path, and closer words before farther) times its quality; ties go to the newer id,
so an order is always the same.

Invariant: every match is on some page, once. Rare words are ranked all together; of a common word
the best in quality are ranked first, then the next, so that no query reads all its matches.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.errors import InvalidInputError
from samplemind.search.cursor import Cursor, Place, decode, encode
from samplemind.search.facets import Facets, count_facets
from samplemind.search.filters import Filters
from samplemind.search.fuzzy import correct
from samplemind.search.highlight import Highlighter, Names
from samplemind.search.languages import TextConfiguration
from samplemind.search.query_limits import LIMITING, PLAN_MODE, note_limits, plan_mode
from samplemind.search.results import Results, check_page, milliseconds_since, to_hit
from samplemind.search.selectivity import share_of_library
from samplemind.search.suggest import Suggestion, suggest
from samplemind.search.text import split_query
from samplemind.search.text_indexes import create_text_indexes
from samplemind.search.text_plan import TextBounds, TextPlan, plan_text
from samplemind.search.text_query import (
    NOWHERE,
    QUALITY_FLOOR,
    TITLE_RANK,
    TO_THE_END,
    Page,
    page_statement,
)
from samplemind.search.tsquery import Joined, Node, lexemes, parse, wants_something
from samplemind.settings import SearchSettings

MAX_QUERY_LENGTH = 500
MAX_WORDS = 32

_READ = text(f"""
WITH asked AS (
    SELECT websearch_to_tsquery(CAST(c AS regconfig), :words) AS query,
           tsvector_to_array(to_tsvector(CAST(c AS regconfig), :words)) AS lexemes
    FROM unnest(CAST(:configurations AS text[])) AS c
)
SELECT (SELECT array_agg(DISTINCT CAST(query AS text)) FROM asked) AS queries,
       (SELECT json_object_agg(lexeme, documents) FROM search_lexemes
        WHERE lexeme IN (SELECT unnest(lexemes) FROM asked)) AS documents,
       (SELECT greatest(reltuples, 0) FROM pg_class WHERE oid = 'search_texts'::regclass) AS files,
       {LIMITING} || set_config('{PLAN_MODE}', CAST(:plan_mode AS text), true) AS limits
""")  # noqa: S608 - a constant's value


@dataclass(frozen=True, slots=True)
class _Read:
    """A query as the server read it, and the plan that it leads to."""

    node: Node
    plan: TextPlan
    files: int


@dataclass(frozen=True, slots=True)
class Matches:
    """The best matches of a query, for further ranking.

    Attributes:
        ranked: (id, score), best first.
        lexemes: what a match may have, for `FullTextSearch.mark`.
    """

    ranked: tuple[tuple[UUID, float], ...]
    lexemes: frozenset[str]


class FullTextSearch:
    """Search by words; one object may serve any number of sessions."""

    def __init__(
        self, settings: SearchSettings | None = None, *, bounds: TextBounds | None = None
    ) -> None:
        self._settings = settings or SearchSettings()
        self._bounds = bounds or TextBounds(rank_up_to=self._settings.rank_up_to)
        self._highlighter = Highlighter()

    async def search_audio_files(
        self,
        session: AsyncSession,
        query: str,
        *,
        owner: UUID | None = None,
        filters: Filters | None = None,
        limit: int = 20,
        offset: int = 0,
        cursor: str | None = None,
        languages: Collection[TextConfiguration] = (),
        explain: bool = False,
        highlights: bool = True,
    ) -> Results:
        """Return the files whose words match, best first.

        Args:
            session: the transaction to read in.
            query: words, "phrases", `or`, and a minus before what must not be there.
            owner: only this user's files; the same as the filter.
            filters: what results must be, and who looks; none: what a stranger may see.
            limit: how many at most, 1 to 1000.
            offset: how many to leave out, up to 10,000; a cursor goes further, and does not
                repeat what moved meanwhile.
            cursor: `next_cursor` of the page before.
            languages: configurations that the query is read in beside the deployment's.
            explain: tell each score's parts.
            highlights: mark the words; without, a highlight is the title.

        Raises:
            InvalidInputError: no word to search for, too many, or a limit out of range.
            TransientError: the time limit ended the query.
        """
        check_page(limit, offset)
        filters = _of_owner(filters or Filters(), owner)
        if cursor is not None and offset:
            message = "give a cursor or an offset, not both"
            raise InvalidInputError(message)
        words = checked_words(query)
        configurations = self._configurations(languages)
        search = (words, configurations, filters)
        start = decode(cursor, search) if cursor is not None else Cursor()
        started = time.perf_counter()
        read = await self._read(session, words, configurations, filters)
        page = await self._page(session, read, filters, Page(limit, offset, start))
        marks = [""] * len(page.rows)
        if highlights:
            marks = await self.mark(session, page.rows, page.lexemes, languages)
        hits = tuple(
            to_hit(row, score=row.score, highlight=mark, explanation=_parts(row, explain))
            for row, mark in zip(page.rows, marks, strict=True)
        )
        return Results(
            milliseconds_since(started),
            page.total,
            page.is_whole,
            hits,
            encode(page.next, search) if page.next is not None else None,
        )

    async def best_matches(
        self,
        session: AsyncSession,
        query: str,
        *,
        filters: Filters,
        limit: int,
        languages: Collection[TextConfiguration] = (),
    ) -> Matches:
        """Return what `search_audio_files` would rank first, without reading what it would show.

        Raises:
            InvalidInputError: no word to search for, too many, or a limit out of range.
            TransientError: the time limit ended the query.
        """
        check_page(limit)
        words = checked_words(query)
        read = await self._read(session, words, self._configurations(languages), filters)
        page = Page(limit, 0, Cursor(), documents=False)
        found = await self._page(session, read, filters, page)
        return Matches(tuple((row.file_id, row.score) for row in found.rows), found.lexemes)

    async def mark(
        self,
        session: AsyncSession,
        rows: Sequence[Row[Any]],
        lexemes: Collection[str],
        languages: Collection[TextConfiguration] = (),
    ) -> list[str]:
        """Return the highlight of each row of `HIT_COLUMNS`: HTML, with its matches in <b>."""
        if not rows:
            return []
        names = [_names(row) for row in rows]
        configurations = self._configurations(languages)
        return await self._highlighter.highlight(session, names, lexemes, configurations)

    async def fuzzy_search(
        self,
        session: AsyncSession,
        query: str,
        *,
        owner: UUID | None = None,
        filters: Filters | None = None,
        limit: int = 20,
        offset: int = 0,
        explain: bool = False,
        highlights: bool = True,
    ) -> Results:
        """Return what `search_audio_files` returns for the query with its misspelt words corrected.

        A word that no file has is replaced by the most likely one that files have. A rare word
        that files do have is searched as it stands, though a far commoner one is a letter away,
        as long as that finds anything. `did_you_mean` is the query with all of these replaced, and
        `searched` the one whose results these are. Words behind a minus and within quotes are
        corrected too.

        Raises:
            InvalidInputError: no word to search for, too many, or a limit out of range.
            TransientError: the time limit ended the query.
        """
        started = time.perf_counter()
        checked_words(query)
        filters = _of_owner(filters or Filters(), owner)

        async def search(words: str) -> Results:
            return await self.search_audio_files(
                session,
                words,
                filters=filters,
                limit=limit,
                offset=offset,
                explain=explain,
                highlights=highlights,
            )

        correction = await correct(session, query, filters, self._settings)
        searched = correction.needed or query
        results = await search(searched)
        if not results.total and correction.likely not in (None, searched):
            searched = correction.likely
            results = await search(searched)
        return replace(
            results,
            took_ms=milliseconds_since(started),
            did_you_mean=correction.likely,
            searched=searched,
            next_cursor=None,
        )

    async def autocomplete(
        self,
        session: AsyncSession,
        prefix: str,
        *,
        owner: UUID | None = None,
        filters: Filters | None = None,
        limit: int = 10,
    ) -> tuple[Suggestion, ...]:
        """Return words and whole names that begin as the prefix does, popular ones first.

        Raises:
            InvalidInputError: nothing to complete, or a limit out of range.
        """
        return await suggest(
            session,
            prefix,
            _of_owner(filters or Filters(), owner),
            settings=self._settings,
            limit=limit,
        )

    async def facets(
        self,
        session: AsyncSession,
        query: str,
        *,
        owner: UUID | None = None,
        filters: Filters | None = None,
        languages: Collection[TextConfiguration] = (),
    ) -> Facets:
        """Return how many matches there are of each kind, key, tag, format and tempo.

        Of a common word the best matches in quality are counted, and `is_exact` is false.

        Raises:
            InvalidInputError: no word to search for, or too many.
            TransientError: the time limit ended the query.
        """
        filters = _of_owner(filters or Filters(), owner)
        words = checked_words(query)
        read = await self._read(session, words, self._configurations(languages), filters)
        return await count_facets(session, read.plan, filters, self._bounds, read.files)

    async def create_search_indexes(self, session: AsyncSession) -> list[str]:
        """Create what indexes of text search are missing, without blocking writers.

        The session's transaction must not have begun anything: CONCURRENTLY works outside of one.

        Returns:
            The names of the indexes that were created; none on a second call.
        """
        return await create_text_indexes(session)

    def _configurations(self, languages: Collection[TextConfiguration]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self._settings.text_configuration, *languages)))

    async def _read(
        self, session: AsyncSession, words: str, configurations: Sequence[str], filters: Filters
    ) -> _Read:
        timeout_ms = self._settings.statement_timeout_ms
        parameters = {
            "words": words,
            "configurations": list(configurations),
            "timeout_ms": str(timeout_ms),
        }
        # Of several words the best plan depends on which they are: one for all took an OR of common
        # words half as long again.
        is_whole = filters.owner_id is None and filters.owner_only and len(words.split()) == 1
        planning = plan_mode(is_whole=is_whole)
        parameters["plan_mode"] = planning
        row = (await session.execute(_READ, parameters)).one()
        note_limits(session, timeout_ms=timeout_ms, extra={PLAN_MODE: planning})
        nodes = tuple(node for query in row.queries if (node := parse(query)) is not None)
        if not nodes or not all(map(wants_something, nodes)):
            message = "the query has no word to search for: name one that files must have"
            raise InvalidInputError(message)
        node = nodes[0] if len(nodes) == 1 else Joined("|", nodes)
        share = await share_of_library(session, filters)
        plan = plan_text(node, row.documents or {}, int(row.files), share, self._bounds)
        return _Read(node, plan, int(row.files))

    async def _page(
        self, session: AsyncSession, read: _Read, filters: Filters, page: Page
    ) -> "_Found":
        found = _Found(lexemes=frozenset(lexemes(read.node)))
        cursor, offset = page.cursor, page.offset
        while True:
            # One more than is wanted tells whether anything follows.
            wanted = Page(page.limit - len(found.rows) + 1, offset, cursor, page.documents)
            band = await self._band(session, read, filters, wanted)
            found.total += band.found
            found.is_whole = band.is_whole and cursor.above is None
            rows = band.rows[: wanted.limit - 1]
            found.rows += rows
            if len(band.rows) == wanted.limit:
                last = Place(rows[-1].score, rows[-1].file_id) if rows else cursor.last
                found.next = replace(band.cursor, last=last)
                return found
            if band.cursor.below == TO_THE_END:
                return found
            cursor = Cursor(above=band.cursor.below, extras=band.cursor.extras)
            offset = max(0, offset - band.found)
            if len(found.rows) == page.limit:
                found.next = cursor
                return found

    async def _band(
        self, session: AsyncSession, read: _Read, filters: Filters, page: Page
    ) -> "_Band":
        cursor = page.cursor
        plan = _plan_for(read.plan, cursor)
        if cursor == Cursor() and plan.may_be_proven and self._is_first_page(page):
            band = await self._widened(session, read, filters, page)
        else:
            rows = await self._rows(session, plan, filters, page, self._bounds)
            if not plan.main.walked:
                end = cursor.below or TO_THE_END
                return _Band(rows, rows[0].found, _ended(plan, cursor, rows[0], end))
            band = _walked(plan, cursor, rows)
        if band.met >= min(self._bounds.least, self._bounds.band):
            return band
        # Too few of the best files match: all the others are looked at.
        plan = (
            plan.gathered()
            if cursor.above is None
            else read.plan.continued(walked=False, extras=len(cursor.extras))
        )
        rows = await self._rows(session, plan, filters, page, self._bounds)
        return _Band(rows, rows[0].found, _ended(plan, cursor, rows[0], TO_THE_END))

    async def _widened(
        self, session: AsyncSession, read: _Read, filters: Filters, page: Page
    ) -> "_Band":
        """Return the first band: its beginning, and its rest where that may hold better ones.

        Nothing is walked or ranked twice.
        """
        bounds = replace(self._bounds, band=self._bounds.prove)
        rows = await self._rows(session, read.plan, filters, page, bounds)
        first = _walked(read.plan, page.cursor, rows)
        left = bounds.walk - round(bounds.band * read.files / read.plan.matches)
        if first.met < bounds.band or left <= 0 or _are_best(rows, page, read.plan):
            return first
        cursor = Cursor(above=first.cursor.below, extras=first.cursor.extras)
        bounds = replace(bounds, band=self._bounds.band - bounds.band, walk=left)
        plan, page = _plan_for(read.plan, cursor), replace(page, cursor=cursor)
        rows = await self._rows(session, plan, filters, page, bounds)
        return first.joined(_walked(plan, cursor, rows), page.limit)

    def _is_first_page(self, page: Page) -> bool:
        # Of more, the last would hardly be better than all that were not ranked.
        return not page.offset and 2 * page.limit <= self._bounds.prove < self._bounds.band

    async def _rows(
        self,
        session: AsyncSession,
        plan: TextPlan,
        filters: Filters,
        page: Page,
        bounds: TextBounds,
    ) -> Sequence[Row[Any]]:
        statement, parameters = page_statement(plan, filters, page, bounds)
        rows: Sequence[Row[Any]] = (await session.execute(statement, parameters)).all()
        return rows


@dataclass(slots=True)
class _Found:
    """A page as it grows from band to band."""

    lexemes: frozenset[str]
    rows: list[Row[Any]] = field(default_factory=list)
    total: int = 0
    is_whole: bool = False
    next: Cursor | None = None


class _Band:
    """What was found of a band; `cursor` tells where the band lies.

    Attributes:
        rows: of the page, best first.
        found: matches in the band.
        met: those of them that a walk met.
    """

    def __init__(self, rows: Sequence[Row[Any]], found: int, cursor: Cursor, met: int = 0) -> None:
        self.rows = [row for row in rows if row.file_id is not None]
        self.found = found
        self.cursor = cursor
        self.met = met
        self.is_whole = cursor.below == TO_THE_END

    def joined(self, further: "_Band", limit: int) -> "_Band":
        """Return this band with the one that follows it, and the best of both."""
        rows = sorted(
            (*self.rows, *further.rows), key=lambda row: (row.score, row.file_id), reverse=True
        )
        cursor = replace(self.cursor, below=further.cursor.below)
        met = self.met + further.met
        return _Band(rows[:limit], self.found + further.found, cursor, met)


def _walked(plan: TextPlan, cursor: Cursor, rows: Sequence[Row[Any]]) -> _Band:
    facts = rows[0]
    # A walk that met nothing leads nowhere.
    end = Place(facts.main_quality, facts.main_id) if facts.main_count else cursor.above
    return _Band(rows, facts.found, _ended(plan, cursor, facts, end), facts.main_count)


def checked_words(query: str) -> str:
    """Return the query with its words split as the index's are.

    Raises:
        InvalidInputError: it has no word, is too long, or has too many words.
    """
    if len(query) > MAX_QUERY_LENGTH:
        message = f"the query has {len(query)} characters; at most {MAX_QUERY_LENGTH} are searched"
        raise InvalidInputError(message)
    words = split_query(query).strip()
    if not any(character.isalnum() for character in words):
        message = "the query has no word to search for"
        raise InvalidInputError(message)
    count = len(words.replace('"', " ").split())
    if count > MAX_WORDS:
        message = f"the query has {count} words; at most {MAX_WORDS} are searched"
        raise InvalidInputError(message)
    return words


def _of_owner(filters: Filters, owner: UUID | None) -> Filters:
    return filters if owner is None else replace(filters, owner_id=owner)


def _plan_for(plan: TextPlan, cursor: Cursor) -> TextPlan:
    if cursor == Cursor():
        return plan if plan.main.walked else plan.gathered()
    walked = cursor.above is not None and cursor.below is None
    return plan.continued(walked=walked, extras=len(cursor.extras))


def _are_best(rows: Sequence[Row[Any]], page: Page, plan: TextPlan) -> bool:
    """Return whether the page is full of files that none beyond the band can be better than."""
    if len(rows) < page.limit:
        return False
    # None of them is better in quality than the band's last.
    factor = QUALITY_FLOOR + (1 - QUALITY_FLOOR) * float(rows[0].main_quality)
    return bool(rows[-1].score >= plan.share_beyond * TITLE_RANK * factor)


def _ended(plan: TextPlan, cursor: Cursor, facts: Row[Any], below: Place | None) -> Cursor:
    if cursor.above is not None or cursor.below is not None:
        return replace(cursor, below=below)
    ends: list[Place | None] = []
    for number, source in enumerate(plan.extras):
        if not source.walked:
            ends.append(None)
            continue
        quality = getattr(facts, f"extra_{number}_quality")
        known = quality is not None
        ends.append(Place(quality, getattr(facts, f"extra_{number}_id")) if known else NOWHERE)
    return Cursor(below=below, extras=tuple(ends))


def _names(row: Row[Any]) -> Names:
    others = (*row.tags, row.pack, row.artist, row.description)
    return Names(row.title, [other for other in others if other])


def _parts(row: Row[Any], explain: bool) -> dict[str, float] | None:
    if not explain:
        return None
    factor = QUALITY_FLOOR + (1 - QUALITY_FLOOR) * row.quality
    return {"rank": round(row.score / factor, 6), "quality": round(row.quality, 4)}
