"""What every kind of search gives back, and what a page may be.

Invariant: hits stand best first; a highlight is safe HTML, whatever a title holds.
"""

import html
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from samplemind.errors import InvalidInputError
from samplemind.models.search_document import SearchDocument

MAX_LIMIT = 1000
MAX_OFFSET = 10_000


@dataclass(frozen=True, slots=True)
class Hit:
    """One file that was found.

    Attributes:
        score: higher for better; its range is the search's own.
        highlight: HTML, the words that matched in <b>.
        explanation: where the score comes from, part by part; none unless it was asked for.
    """

    id: UUID
    path: str
    title: str
    score: float
    highlight: str
    pack: str | None = None
    tags: tuple[str, ...] = ()
    kind: str | None = None
    tempo_bpm: float | None = None
    key: str | None = None
    duration_s: float | None = None
    explanation: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """One page of hits.

    Attributes:
        took_ms: milliseconds from the call to the last row.
        total: how many files match; where `total_is_exact` is false, at least this many.
        next_cursor: what continues after this page; none at the end, or where a search has none.
        did_you_mean: the query with its misspelt words corrected; none where nothing was.
        searched: of a fuzzy search, the query whose results these are.
    """

    took_ms: float
    total: int
    total_is_exact: bool
    results: tuple[Hit, ...]
    next_cursor: str | None = None
    did_you_mean: str | None = None
    searched: str | None = None


HIT_COLUMNS = (
    SearchDocument.file_id,
    SearchDocument.path,
    SearchDocument.title,
    SearchDocument.pack,
    SearchDocument.artist,
    SearchDocument.description,
    SearchDocument.tags,
    SearchDocument.kind,
    SearchDocument.tempo_bpm,
    SearchDocument.key,
    SearchDocument.duration_s,
)
"""What `to_hit` and highlights read of a row."""


def to_hit(
    document: SearchDocument | Row[Any],
    *,
    score: float,
    highlight: str = "",
    explanation: Mapping[str, float] | None = None,
) -> Hit:
    """Return the hit that a row makes; without a highlight, its title escaped."""
    return Hit(
        id=document.file_id,
        path=document.path,
        title=document.title,
        score=round(score, 6),
        highlight=highlight or html.escape(document.title),
        pack=document.pack,
        tags=tuple(document.tags),
        kind=document.kind,
        tempo_bpm=document.tempo_bpm,
        key=document.key,
        duration_s=document.duration_s,
        explanation=explanation,
    )


def check_page(limit: int, offset: int = 0) -> None:
    """Refuse a page that no caller means.

    Raises:
        InvalidInputError: the limit is not within 1..1000, or the offset not within 0..10000.
    """
    if not 1 <= limit <= MAX_LIMIT:
        message = f"limit must be from 1 to {MAX_LIMIT}, not {limit}"
        raise InvalidInputError(message)
    if not 0 <= offset <= MAX_OFFSET:
        message = f"offset must be from 0 to {MAX_OFFSET}, not {offset}: narrow the search instead"
        raise InvalidInputError(message)


def milliseconds_since(started: float) -> float:
    """Return the milliseconds since a reading of `time.perf_counter`."""
    return round((time.perf_counter() - started) * 1000, 2)
