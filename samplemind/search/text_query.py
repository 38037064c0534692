"""The statement that finds one page of a full-text search.

Matches are ranked in bands: all of them at once where the plan gathers, else as many at a time as
were walked to in descending quality. A band is told by the places in quality between which it lies,
so a later page ranks the same band again and neither repeats nor drops a file.

Invariant: words and values are bound parameters; only this module's own fragments are SQL.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import add
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    REAL,
    ColumnElement,
    Float,
    Integer,
    Select,
    Subquery,
    Uuid,
    and_,
    bindparam,
    cast,
    func,
    not_,
    select,
    true,
    tuple_,
    union,
)
from sqlalchemy.dialects.postgresql import TSQUERY

from samplemind.models.search_document import SearchDocument
from samplemind.models.search_text import SearchText
from samplemind.search.cursor import Cursor, Place
from samplemind.search.filters import Filters
from samplemind.search.results import HIT_COLUMNS
from samplemind.search.text_plan import Ranked, Source, TextBounds, TextPlan

# A file of no quality keeps this share of its rank, so that it still has its place.
QUALITY_FLOOR = 0.05
# What `ts_rank` gives to one word that stands once, in the title.
TITLE_RANK = 6 / math.pi**2
_KEPT_STATEMENTS = 256
# No file is as good: what an extra that found nothing ends with. And none is worse.
NOWHERE = Place(2.0, UUID(int=0))
TO_THE_END = Place(-1.0, UUID(int=0))


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of the order is wanted."""

    limit: int
    offset: int
    cursor: Cursor
    documents: bool = True  # whether what hits show is read


def score(words: Any, quality: Any, plan: TextPlan) -> ColumnElement[float]:
    """Return the score of a match, above 0 and up to 1: its rank times its quality.

    `ts_rank` (PostgreSQL manual, 12.3.3) with its default weights: title 1, tags 0.4, pack and
    artist 0.2, description and path 0.1. A word that stands in the title has its full rank
    whatever else repeats it, so quality alone orders these files. An OR has the mean of its sides,
    as in `ts_rank`.
    """
    ranks = [_rank(words, part) for part in plan.ranked]
    rank = reduce(add, ranks) / float(len(ranks))
    scaled: ColumnElement[float] = rank * (
        QUALITY_FLOOR + (1 - QUALITY_FLOOR) * cast(quality, Float(53))
    )
    return scaled


def _rank(words: Any, part: Ranked) -> Any:
    rank = cast(func.ts_rank(words, as_tsquery(part.query)), Float(53))
    return func.least(rank, TITLE_RANK) if part.is_word else rank


def as_tsquery(name: str) -> ColumnElement[Any]:
    """Return the parameter of that name, a tsquery's text form.

    It is a tsquery already when it comes: of a text, one plan for all values would read it anew
    for every file that it is held against, which takes three times as long as the walk.
    """
    return cast(bindparam(name, type_=TSQUERY), TSQUERY)


def page_statement(
    plan: TextPlan, filters: Filters, page: Page, bounds: TextBounds
) -> tuple[Select[Any], dict[str, Any]]:
    """Return the statement and its parameters.

    Its first row has the band's facts even where the page is empty.
    """
    form, queries = plan.form()
    # Making a statement takes as long as running it, so those of first pages are kept.
    make = _kept if page.cursor == Cursor() else _statement
    statement = make(form, filters, page.cursor, bounds, documents=page.documents)
    return statement, {**queries, "limit": page.limit, "offset": page.offset}


def _statement(
    plan: TextPlan, filters: Filters, cursor: Cursor, bounds: TextBounds, *, documents: bool
) -> Select[Any]:
    # The first band held the extras' matches too, wherever in quality they stand.
    before = () if cursor.above is None else tuple(zip(plan.extras, cursor.extras, strict=True))
    parts = [matches_statement(plan.main, plan, filters, bounds, cursor, before).cte("main")]
    if cursor.above is None:
        ends = cursor.extras or (None,) * len(plan.extras)
        parts += [
            matches_statement(source, plan, filters, bounds, Cursor(below=end)).cte(f"extra_{n}")
            for n, (source, end) in enumerate(zip(plan.extras, ends, strict=True))
        ]
    rows = [select(part.c.file_id, part.c.quality, part.c.score) for part in parts]
    candidates = (union(*rows) if len(rows) > 1 else rows[0]).cte("candidates")
    best = _best(candidates, cursor)
    count = select(func.count()).select_from(candidates).scalar_subquery()
    walked = [
        part
        for part, source in zip(parts, (plan.main, *plan.extras), strict=False)
        if source.walked
    ]
    facts = select(count.label("found"), *(column for part in walked for column in _end(part))).cte(
        "facts"
    )
    columns: tuple[Any, ...] = (best.c.file_id,)
    shown: Any = best
    if documents:
        columns = (SearchDocument.quality, *HIT_COLUMNS)
        shown = best.join(SearchDocument, SearchDocument.file_id == best.c.file_id)
    return (
        select(facts, best.c.score, *columns)
        .select_from(facts.outerjoin(shown, true()))
        .order_by(best.c.score.desc(), best.c.file_id.desc())
    )


_kept = lru_cache(maxsize=_KEPT_STATEMENTS)(_statement)


def _best(candidates: CTE, cursor: Cursor) -> CTE:
    columns = candidates.c
    statement = select(columns.file_id, columns.score)
    if cursor.last is not None:
        last = tuple_(cursor.last.value, cursor.last.file_id)
        statement = statement.where(tuple_(columns.score, columns.file_id) < last)
    return (
        statement.order_by(columns.score.desc(), columns.file_id.desc())
        .limit(bindparam("limit", type_=Integer))
        .offset(bindparam("offset", type_=Integer))
        .cte("best")
    )


def _end(part: CTE) -> tuple[ColumnElement[Any], ...]:
    worst = select(part.c.quality, part.c.file_id).order_by(part.c.quality, part.c.file_id).limit(1)
    count = select(func.count()).select_from(part).scalar_subquery()
    return (
        count.label(f"{part.name}_count"),
        worst.with_only_columns(part.c.quality).scalar_subquery().label(f"{part.name}_quality"),
        worst.with_only_columns(part.c.file_id).scalar_subquery().label(f"{part.name}_id"),
    )


def matches_statement(
    source: Source,
    plan: TextPlan,
    filters: Filters,
    bounds: TextBounds,
    band: Cursor,
    ranked_before: Sequence[tuple[Source, Place | None]] = (),
) -> Select[Any]:
    """Return the matches of a source in a band: `file_id`, `quality` and `score`.

    Args:
        source: what matches, walked to or gathered; its query is the name of a parameter, as
            `TextPlan.form` gives it.
        plan: in the same form, whose query the score is for.
        filters: what passes.
        bounds: how far is walked, for how many.
        band: between which places in quality.
        ranked_before: sources and the places they ended with, whose matches are left out.
    """
    walked = source.walked and band.below is None
    columns: Any = _best_files(band, bounds.walk).c if walked else SearchText.__table__.c
    statement = (
        select(
            columns.file_id,
            columns.quality,
            score(columns.words, columns.quality, plan).label("score"),
        )
        .where(_has(columns, source))
        .where(*filters.visible(columns.owner_id, columns.file_id))
    )
    for extra, end in ranked_before:
        present = and_(_has(columns, extra), *_inside(columns, Cursor(below=end)))
        statement = statement.where(not_(present))
    if not filters.owner_only:
        statement = statement.join(SearchDocument, SearchDocument.file_id == columns.file_id).where(
            *filters.properties()
        )
    if not walked:
        return statement.where(*_inside(columns, band))
    best_first = (columns.quality.desc(), columns.file_id.desc())
    return statement.order_by(*best_first).limit(bounds.band)


def _has(columns: Any, source: Source) -> ColumnElement[bool]:
    matches: ColumnElement[bool] = columns.words.op("@@", is_comparison=True)(
        as_tsquery(source.query)
    )
    return matches


def _best_files(band: Cursor, walk: int) -> Subquery:
    columns = SearchText.__table__.c
    return (
        select(columns.file_id, columns.owner_id, columns.quality, columns.words)
        .where(*_inside(columns, band))
        .order_by(columns.quality.desc(), columns.file_id.desc())
        .limit(walk)
        .subquery("files")
    )


def _inside(columns: Any, band: Cursor) -> list[ColumnElement[bool]]:
    place = tuple_(columns.quality, columns.file_id)
    conditions: list[ColumnElement[bool]] = []
    if band.above is not None:
        conditions.append(place < _quality_place(band.above))
    if band.below is not None and band.below != TO_THE_END:
        conditions.append(place >= _quality_place(band.below))
    return conditions


def _quality_place(place: Place) -> Any:
    return tuple_(cast(place.value, REAL), cast(place.file_id, Uuid))
