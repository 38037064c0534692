"""Search by words.

Queries follow PostgreSQL's `websearch_to_tsquery`: words, "phrases", `or`, and a minus before what
must not be there. Results are ranked by weight (title, then tags, pack, path) and closeness of the
words; ties go to the newer file, so an order is always the same.
"""

import html
import time
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Float, cast, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.errors import InvalidInputError
from samplemind.models.search_document import SearchDocument
from samplemind.models.search_text import SearchText
from samplemind.search.filters import Filters
from samplemind.search.text import split_query, split_words

CONFIGURATION = "samplemind"
MAX_LIMIT = 1000
MAX_QUERY_LENGTH = 500

# ts_rank_cd's normalisation 32 maps ranks into 0..1.
_NORMALISE = 32
# Marks that cannot stand in a title, since control characters are taken out of it.
_OPEN, _CLOSE = "\x02", "\x03"
_HIGHLIGHT = text(f"""
SELECT ts_headline('{CONFIGURATION}', name, query, :options)
FROM unnest(CAST(:texts AS text[])) WITH ORDINALITY AS titles (name, place),
     websearch_to_tsquery('{CONFIGURATION}', :words) AS query
ORDER BY place
""")  # noqa: S608  # the configuration's name is the constant above


@dataclass(frozen=True, slots=True)
class Hit:
    """One result; `score` is higher for better, `highlight` is HTML with the words in <b>."""

    id: UUID
    path: str
    title: str
    score: float
    highlight: str
    kind: str | None = None
    tempo_bpm: float | None = None
    key: str | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """The hits of one page, how many there are in all, and the milliseconds it took."""

    took_ms: float
    total: int
    results: tuple[Hit, ...]


async def search_audio_files(
    session: AsyncSession,
    query: str,
    *,
    filters: Filters | None = None,
    limit: int = 20,
    offset: int = 0,
) -> Results:
    """Return the files whose words match.

    Raises:
        InvalidInputError: the query has no word, is too long, or a limit is out of range.
    """
    check_page(limit, offset)
    words = _checked(query)
    started = time.perf_counter()
    tsquery = func.websearch_to_tsquery(CONFIGURATION, words)
    conditions = [
        SearchText.words.op("@@")(tsquery),
        *(filters or Filters()).conditions(),
    ]
    same_file = SearchText.file_id == SearchDocument.file_id
    total = await session.scalar(
        select(func.count())
        .select_from(SearchDocument)
        .join(SearchText, same_file)
        .where(*conditions)
    )
    rank = cast(func.ts_rank_cd(SearchText.words, tsquery, _NORMALISE), Float).label("rank")
    page = (
        select(SearchDocument, rank)
        .join(SearchText, same_file)
        .where(*conditions)
        .order_by(rank.desc(), SearchDocument.file_id.desc())
        .limit(limit)
        .offset(offset)
    )
    rows = (await session.execute(page)).all()
    highlights = await _highlights(session, [row[0] for row in rows], words)
    hits = tuple(
        to_hit(document, score=float(score), highlight=highlight)
        for (document, score), highlight in zip(rows, highlights, strict=True)
    )
    return Results(_milliseconds_since(started), total or 0, hits)


def to_hit(document: SearchDocument, *, score: float, highlight: str = "") -> Hit:
    """Return the hit that a row makes; without a highlight, its title escaped."""
    return Hit(
        id=document.file_id,
        path=document.path,
        title=document.title,
        score=round(score, 6),
        highlight=highlight or html.escape(document.title),
        kind=document.kind,
        tempo_bpm=document.tempo_bpm,
        key=document.key,
        duration_s=document.duration_s,
    )


def check_page(limit: int, offset: int) -> None:
    """Refuse a page that no caller means.

    Raises:
        InvalidInputError: the limit is not within 1..1000, or the offset is negative.
    """
    if not 1 <= limit <= MAX_LIMIT:
        message = f"limit must be from 1 to {MAX_LIMIT}, not {limit}"
        raise InvalidInputError(message)
    if offset < 0:
        message = f"offset must not be negative, and is {offset}"
        raise InvalidInputError(message)


def _checked(query: str) -> str:
    if len(query) > MAX_QUERY_LENGTH:
        message = f"the query has {len(query)} characters; at most {MAX_QUERY_LENGTH} are searched"
        raise InvalidInputError(message)
    words = split_query(query).strip()
    if not any(character.isalnum() for character in words):
        message = "the query has no word to search for"
        raise InvalidInputError(message)
    return words


async def _highlights(
    session: AsyncSession, documents: list[SearchDocument], words: str
) -> list[str]:
    # Only the returned rows are marked: ts_headline parses its whole text again.
    if not documents:
        return []
    texts = [
        " · ".join(filter(None, (split_words(document.title), " ".join(document.tags))))
        for document in documents
    ]
    rows = await session.scalars(
        _HIGHLIGHT,
        {
            "texts": texts,
            "words": words,
            "options": f"StartSel={_OPEN}, StopSel={_CLOSE}, HighlightAll=true",
        },
    )
    return [html.escape(row).replace(_OPEN, "<b>").replace(_CLOSE, "</b>") for row in rows]


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 2)
