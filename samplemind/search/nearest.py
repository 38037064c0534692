"""The SQL that finds the nearest vectors: in the indexed table and the fresh one, as one answer.

Both tables are read by one statement, so that a vector that is folded meanwhile is seen once. The
plan is fixed by the statement and its settings, not left to the planner's costs: an expression of
a distance is not what an index orders by (compare all), and without sorts the walk is cheapest.

Invariant: filters are conditions of the search itself. They are never applied to the few rows that
an approximate search has already chosen, which would drop right answers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from pgvector import HalfVector
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import (
    ColumnElement,
    Float,
    Select,
    Uuid,
    all_,
    bindparam,
    func,
    literal,
    literal_column,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY

from samplemind.models.audio_collection import AudioCollection, AudioCollectionItem
from samplemind.models.search_document import SearchDocument
from samplemind.models.search_vector import EMBEDDING_DIMENSIONS, FreshSearchVector, SearchVector
from samplemind.search.filters import Filters
from samplemind.search.sound import Vector

# A filter that leaves less than one in a few thousand is not for a walk; it is compared.
MOST_WALKED = 40_000
IVFFLAT_PROBES = 20
# Of 1,000,000: recall@10 within an owner of 2 % is .96 with 1 and .98 with 2.
_REACH = 2

_VECTOR = HALFVEC(EMBEDDING_DIMENSIONS)
_HALVES: Any = ARRAY(_VECTOR)
_IDS: Any = ARRAY(Uuid)
_Table = type[SearchVector] | type[FreshSearchVector]


class Metric(StrEnum):
    """What "near" means. The index's vectors have unit length, so that all three order alike."""

    COSINE = "cosine"
    L2 = "l2"
    INNER_PRODUCT = "inner_product"


_OPERATORS = {Metric.COSINE: "<=>", Metric.L2: "<->", Metric.INNER_PRODUCT: "<#>"}


@dataclass(frozen=True, slots=True)
class Scope:
    """Which vectors count.

    Attributes:
        embedding_version: the only one compared.
        filters: what their files must be.
        excluded: files that are never returned.
    """

    embedding_version: str
    filters: Filters
    excluded: tuple[UUID, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether it leaves nothing out but other versions and a few files."""
        return not self.filters.conditions()


def count(scope: Scope, *, at_most: int) -> Select[Any]:
    """Return a query for how many vectors `compare` would look at; it stops one past `at_most`."""
    passing = (
        union_all(*_reached(scope, lambda table: select(table.file_id))).limit(at_most + 1)
        if scope.filters.owner_only
        else _allowed(scope).limit(at_most + 1)
    )
    counted: Select[Any] = select(func.count()).select_from(passing.subquery())
    return counted


def compare(scope: Scope, vector: ColumnElement[Any], *, metric: Metric, take: int) -> Select[Any]:
    """Return a query for (file_id, distance) that compares all vectors of a scope, nearest first.

    Args:
        scope: which vectors count.
        vector: what they are compared with: a parameter, or a column of the statement around.
        metric: in which distances are told.
        take: how many are returned at most.
    """
    distance = _Distance(vector, metric)

    def measured(table: _Table) -> Select[Any]:
        columns: list[Any] = [table.file_id, distance.told(table).label("distance")]
        return select(*columns)

    if scope.filters.owner_only:
        branches = _reached(scope, measured)
    else:
        # Once for both tables, and before any vector is visited.
        allowed = _allowed(scope).cte("allowed").prefix_with("MATERIALIZED", dialect="postgresql")
        branches = [
            measured(table)
            .join(allowed, allowed.c.file_id == table.file_id)
            .where(*_in_scope(table, scope))
            for table in (SearchVector, FreshSearchVector)
        ]
    compared = union_all(*branches).subquery("compared")
    # A sum is not what the index orders by, which therefore cannot be walked.
    return (
        select(compared.c.file_id, compared.c.distance)
        .order_by(compared.c.distance + literal(0.0), compared.c.file_id)
        .limit(take)
    )


def walk(scope: Scope, vector: ColumnElement[Any], *, metric: Metric, take: int) -> Select[Any]:
    """Return a query for (file_id, distance) along the index, nearest first.

    Fresh vectors are all compared. The transaction must have the settings of `walk_settings`.
    """
    distance = _Distance(vector, metric)
    # The walk ends with its last result: without more than are wanted, a filter costs recall.
    reach = take if scope.whole else _REACH * take
    branches = []
    for table in (SearchVector, FreshSearchVector):
        near = (
            select(table.file_id, distance.told(table).label("distance"))
            .where(*_in_scope(table, scope), *_passing(table, scope.filters))
            .order_by(distance.walked(table))
            .limit(reach)
            .subquery()
        )
        branches.append(select(near))
    found = union_all(*branches).subquery("found")
    # The sum keeps the planner from trusting the walk's order, which is nearly right only.
    return (
        select(found.c.file_id, found.c.distance)
        .order_by(found.c.distance + literal(0.0), found.c.file_id)
        .limit(take)
    )


def walk_settings(ef_search: int) -> dict[str, str]:
    """Return the server's settings under which `walk` finds enough."""
    return {
        "hnsw.ef_search": str(ef_search),
        # Goes on where a filter leaves too few; the statement around sorts what it finds.
        "hnsw.iterative_scan": "relaxed_order",
        "hnsw.max_scan_tuples": str(MOST_WALKED),
        "hnsw.scan_mem_multiplier": "4",
        "ivfflat.probes": str(IVFFLAT_PROBES),
        "ivfflat.iterative_scan": "relaxed_order",
        # Without sorts, only the index gives an order.
        "enable_sort": "off",
    }


COMPARE_SETTINGS = {"enable_sort": "on"}


def as_parameter(vector: Vector | None = None) -> ColumnElement[Any]:
    """Return the parameter `wanted`, a vector of half precision; none: given when it is run."""
    return bindparam("wanted", None if vector is None else HalfVector(vector), type_=_VECTOR)


def for_each(query: Callable[[ColumnElement[Any]], Select[Any]]) -> Select[Any]:
    """Return a query for (place, file_id, distance): `query` for each vector of `wanted`.

    `place` counts from 1 in the order of the vectors; those without a neighbour have no row.
    """
    # One array that is read once: a vector in text would be read again for every comparison.
    wanted = (
        func.unnest(bindparam("wanted", type_=_HALVES), type_=_VECTOR)
        .table_valued("vector", with_ordinality="place")
        .render_derived(name="each")
    )
    # By name: a column of `wanted` would put that table into each query inside as well.
    one = query(literal_column("each.vector", _VECTOR)).lateral("one")
    return (
        select(wanted.c.place, one.c.file_id, one.c.distance).select_from(wanted).join(one, true())
    )


@dataclass(frozen=True, slots=True)
class _Distance:
    vector: ColumnElement[Any]
    metric: Metric

    def told(self, table: _Table) -> ColumnElement[float]:
        """The distance in the metric that was asked for."""
        return table.embedding.op(_OPERATORS[self.metric], return_type=Float())(self.vector)

    def walked(self, table: _Table) -> ColumnElement[float]:
        """The distance that the index orders by."""
        return table.embedding.op(_OPERATORS[Metric.COSINE], return_type=Float())(self.vector)


def _reached(scope: Scope, query: Callable[[_Table], Select[Any]]) -> list[Select[Any]]:
    # Apart, so that each reason for being seen has an index of its own.
    return [
        query(table).where(*_in_scope(table, scope), *reason)
        for table in (SearchVector, FreshSearchVector)
        for reason in _reasons(table, scope.filters)
    ]


def _allowed(scope: Scope) -> Select[Any]:
    allowed: Select[Any] = select(SearchDocument.file_id).where(
        *_in_scope(SearchDocument, scope), *scope.filters.conditions()
    )
    return allowed


def _in_scope(table: _Table | type[SearchDocument], scope: Scope) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [table.embedding_version == scope.embedding_version]
    if scope.excluded:
        excluded = bindparam("excluded", list(scope.excluded), type_=_IDS)
        conditions.append(table.file_id != all_(excluded))
    return conditions


def _passing(table: _Table, filters: Filters) -> list[ColumnElement[bool]]:
    if filters.owner_only:
        return filters.visible(table.owner_id, table.file_id)
    # A scalar, not EXISTS: the planner would turn that into a join, and lose the index's order.
    document = (
        select(true())
        .where(SearchDocument.file_id == table.file_id, *filters.conditions())
        .correlate(table)
        .scalar_subquery()
    )
    return [document.is_(true())]


def _reasons(table: _Table, filters: Filters) -> list[list[ColumnElement[bool]]]:
    """Return alternatives that exclude each other, which together are `filters.visible`."""
    if filters.everything or filters.owner_id is not None:
        return [filters.visible(table.owner_id, table.file_id)]
    others: list[ColumnElement[bool]] = [table.owner_id.is_not(None)]
    reasons: list[list[ColumnElement[bool]]] = [[table.owner_id.is_(None)]]
    if filters.viewer_id is not None:
        reasons.append([table.owner_id == filters.viewer_id])
        others.append(table.owner_id != filters.viewer_id)
    public = (
        select(AudioCollectionItem.audio_file_id)
        .join(AudioCollection, AudioCollection.id == AudioCollectionItem.collection_id)
        .where(AudioCollection.is_public)
    )
    return [*reasons, [*others, table.file_id.in_(public)]]
