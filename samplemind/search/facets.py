"""How many matches there are of each kind, key, tag, format and tempo.

Invariant: work is bounded: of a common word the best matches in quality are counted and the
answer says so; each facet has a bounded number of values.
"""

import time
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CompoundSelect,
    Integer,
    Select,
    Text,
    cast,
    func,
    literal,
    null,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.models.search_document import SearchDocument
from samplemind.search.cursor import Cursor
from samplemind.search.filters import Filters
from samplemind.search.results import milliseconds_since
from samplemind.search.text_plan import TextBounds, TextPlan
from samplemind.search.text_query import matches_statement

FACET_VALUES = 20
FACETS_UP_TO = 5000  # matches counted
_KEPT_STATEMENTS = 64
_TEMPO_STEP = 10  # beats a minute


@dataclass(frozen=True, slots=True)
class Facets:
    """Counts of a query's matches.

    Attributes:
        counted: how many matches were counted.
        is_exact: whether these were all.
        counts: facet → value → matches, most first. A tempo is its ten: `120` means 120 to 129.
    """

    took_ms: float
    counted: int
    is_exact: bool
    counts: dict[str, dict[str, int]]


async def count_facets(
    session: AsyncSession, plan: TextPlan, filters: Filters, bounds: TextBounds, files: int
) -> Facets:
    """Count the facets of a plan's matches; the transaction's limits are the caller's to set."""
    started = time.perf_counter()
    bounds = replace(bounds, band=FACETS_UP_TO)
    form, queries = plan.form()
    rows = (await session.execute(_statement(form, filters, bounds), queries)).all()
    walked = plan.main.walked
    if walked and rows[0].matches < bounds.least and files > bounds.walk:
        # The estimate was wrong: too few of the best files match.
        walked = False
        rows = (await session.execute(_statement(form.gathered(), filters, bounds), queries)).all()
    counted = rows[0].matches
    counts: dict[str, dict[str, int]] = {}
    for row in rows[1:]:
        counts.setdefault(row.facet, {})[row.value] = row.matches
    is_exact = not walked or (counted < FACETS_UP_TO and files <= bounds.walk)
    return Facets(milliseconds_since(started), counted, is_exact, counts)


@lru_cache(maxsize=_KEPT_STATEMENTS)
def _statement(plan: TextPlan, filters: Filters, bounds: TextBounds) -> CompoundSelect[Any]:
    matches = matches_statement(plan.main, plan, filters, bounds, Cursor()).cte("matches")
    found = (
        select(
            SearchDocument.kind,
            SearchDocument.key,
            SearchDocument.format,
            SearchDocument.tags,
            SearchDocument.tempo_bpm,
        )
        .join(matches, matches.c.file_id == SearchDocument.file_id)
        .cte("found", nesting=False)
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    tags = select(func.unnest(found.c.tags).label("tag")).subquery("tags")
    tempo = cast(cast(func.floor(found.c.tempo_bpm / _TEMPO_STEP), Integer) * _TEMPO_STEP, Text)
    none: Any = cast(null(), Text)
    return union_all(
        select(none.label("facet"), none.label("value"), func.count().label("matches")).select_from(
            found
        ),
        _counts("kind", found.c.kind, found),
        _counts("key", found.c.key, found),
        _counts("format", found.c.format, found),
        _counts("tempo", tempo, found),
        _counts("tag", tags.c.tag, tags),
    )


def _counts(facet: str, value: Any, source: Any) -> Select[Any]:
    counted = (
        select(literal(facet, Text).label("facet"), value.label("value"), func.count().label("n"))
        .select_from(source)
        .where(value.is_not(None))
        .group_by(value)
        .order_by(func.count().desc(), value)
        .limit(FACET_VALUES)
        .subquery()
    )
    return select(counted.c.facet, counted.c.value, counted.c.n)
