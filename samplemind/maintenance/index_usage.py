"""Indexes that cost more than they give: unused, duplicate, redundant, invalid.

Invariant: an index is called unused only where it could have been used: the server has counted for
long enough and the table was read meanwhile. A unique index or one that a constraint stands on is
never called useless, because it also keeps a rule. The judgement is pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from samplemind.maintenance.session import Session, fetch

_INDEXES = """
SELECT i.indexrelid::bigint AS oid, n.nspname AS schema, t.relname AS table, c.relname AS index,
       am.amname AS method, i.indisunique AS is_unique, i.indisvalid AS is_valid,
       con.oid IS NOT NULL AS of_constraint, inh.inhrelid IS NOT NULL AS of_partition,
       pg_relation_size(i.indexrelid) AS size_bytes,
       coalesce(s.idx_scan, 0) AS scans,
       coalesce(ts.seq_scan, 0) + coalesce(ts.idx_scan, 0) AS table_reads,
       coalesce(ts.n_tup_ins + ts.n_tup_upd + ts.n_tup_del, 0) AS table_writes,
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, true)
                    || CASE WHEN am.amname = 'btree' THEN ' ' || i.indoption[k - 1] ELSE '' END
                    || ' ' || i.indclass[k - 1] || ' ' || i.indcollation[k - 1]
             FROM generate_series(1, i.indnkeyatts) AS k ORDER BY k) AS keys,
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, true)
             FROM generate_series(i.indnkeyatts + 1, i.indnatts) AS k ORDER BY 1) AS included,
       coalesce(pg_get_expr(i.indpred, i.indrelid), '') AS predicate,
       pg_get_indexdef(i.indexrelid) AS definition,
       d.stats_reset AS counted_since
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_class AS t ON t.oid = i.indrelid
JOIN pg_namespace AS n ON n.oid = t.relnamespace JOIN pg_am AS am ON am.oid = c.relam
LEFT JOIN pg_constraint AS con ON con.conindid = i.indexrelid AND con.contype IN ('p', 'u', 'x')
LEFT JOIN pg_inherits AS inh ON inh.inhrelid = i.indexrelid
LEFT JOIN pg_stat_user_indexes AS s ON s.indexrelid = i.indexrelid
LEFT JOIN pg_stat_user_tables AS ts ON ts.relid = i.indrelid
LEFT JOIN pg_stat_database AS d ON d.datname = current_database()
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
  AND n.nspname NOT LIKE 'pg_temp%' AND c.relkind = 'i'
ORDER BY t.relname, c.relname
"""


class IndexProblem(StrEnum):
    """What can be wrong with an index."""

    INVALID = "invalid"
    DUPLICATE = "duplicate"
    REDUNDANT = "redundant"
    UNUSED = "unused"


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """One index as the catalogue and the counters have it; `keys` with order and class."""

    oid: int
    schema: str
    table: str
    index: str
    method: str
    is_unique: bool
    is_valid: bool
    of_constraint: bool
    of_partition: bool
    size_bytes: int
    scans: int
    table_reads: int
    table_writes: int
    keys: tuple[str, ...]
    included: tuple[str, ...]
    predicate: str
    definition: str
    counted_since: datetime | None

    @property
    def keeps_a_rule(self) -> bool:
        """Whether it must stay even if nobody reads it."""
        return self.is_unique or self.of_constraint


@dataclass(frozen=True, slots=True)
class IndexFinding:
    """One index that could go, by which figures, and the statement that does it."""

    problem: IndexProblem
    index: str
    table: str
    evidence: Mapping[str, float | int | str]
    recommendation: str
    sql: str


@dataclass(frozen=True, slots=True)
class UsageLimits:
    """From where on an index is unused."""

    counted_for: timedelta = timedelta(days=7)
    table_reads: int = 1000
    size_bytes: int = 1 << 20


async def read_indexes(session: Session) -> list[IndexFacts]:
    """Return every index of the database but the server's own."""
    rows = await fetch(session, _INDEXES)
    return [_facts(row) for row in rows]


def find_useless(
    indexes: Sequence[IndexFacts], now: datetime, limits: UsageLimits | None = None
) -> list[IndexFinding]:
    """Return the indexes that could go, those that are broken first, then the largest."""
    bounds = limits or UsageLimits()
    found = [*_invalid(indexes), *_covered(indexes), *_unused(indexes, now, bounds)]
    order = list(IndexProblem)
    sizes = {index.index: index.size_bytes for index in indexes}
    found.sort(key=lambda each: (order.index(each.problem), -sizes[each.index]))
    # One reason for one index: the first is the strongest.
    first: dict[str, IndexFinding] = {}
    for each in found:
        first.setdefault(each.index, each)
    return list(first.values())


def _invalid(indexes: Sequence[IndexFacts]) -> Iterator[IndexFinding]:
    for index in indexes:
        if not index.is_valid:
            yield IndexFinding(
                IndexProblem.INVALID,
                index.index,
                index.table,
                {"size_bytes": index.size_bytes},
                "it was left by a CREATE or REINDEX CONCURRENTLY that broke: it is written to and "
                "never read",
                _drop(index),
            )


def _covered(indexes: Sequence[IndexFacts]) -> Iterator[IndexFinding]:
    """Yield each index whose work another one does as well."""
    for index in indexes:
        if index.keeps_a_rule or not index.is_valid:
            continue
        for other in indexes:
            problem = _relation(index, other)
            if problem is None:
                continue
            yield IndexFinding(
                problem,
                index.index,
                index.table,
                {
                    "size_bytes": index.size_bytes,
                    "covered_by": other.index,
                    "columns": ", ".join(_names(index)),
                    "columns_of_the_other": ", ".join(_names(other)),
                },
                f"{other.index} answers every query that it answers",
                _drop(index),
            )
            break


def _relation(index: IndexFacts, other: IndexFacts) -> IndexProblem | None:
    if other.oid == index.oid or not other.is_valid or index.is_unique:
        return None
    same_place = (index.schema, index.table, index.method, index.predicate) == (
        other.schema,
        other.table,
        other.method,
        other.predicate,
    )
    if not same_place or index.method not in ("btree", "hash", "gin", "gist", "brin"):
        return None
    if index.keys == other.keys and set(index.included) <= set(other.included):
        # Of two that are alike, the one that keeps no rule goes; of two such, the younger.
        equal = set(index.included) == set(other.included)
        if not equal or other.keeps_a_rule or index.oid > other.oid:
            return IndexProblem.DUPLICATE if equal else IndexProblem.REDUNDANT
        return None
    is_prefix = index.method == "btree" and other.keys[: len(index.keys)] == index.keys
    if is_prefix and set(index.included) <= set(_names(other)) | set(other.included):
        return IndexProblem.REDUNDANT
    return None


def _unused(
    indexes: Sequence[IndexFacts], now: datetime, limits: UsageLimits
) -> Iterator[IndexFinding]:
    for index in indexes:
        counted_for = now - index.counted_since if index.counted_since else None
        if (
            index.scans
            or index.keeps_a_rule
            or not index.is_valid
            or index.of_partition
            or index.size_bytes < limits.size_bytes
            or index.table_reads < limits.table_reads
            # Without a reset the counters are as old as the cluster.
            or (counted_for is not None and counted_for < limits.counted_for)
        ):
            continue
        yield IndexFinding(
            IndexProblem.UNUSED,
            index.index,
            index.table,
            {
                "size_bytes": index.size_bytes,
                "scans": 0,
                "table_reads": index.table_reads,
                "table_writes": index.table_writes,
                "days_counted": counted_for.days if counted_for else "since the cluster began",
            },
            "nothing read it; standbys count for themselves, so look there too before it goes",
            _drop(index),
        )


def _facts(row: Mapping[str, Any]) -> IndexFacts:
    return IndexFacts(**{**row, "keys": tuple(row["keys"]), "included": tuple(row["included"])})


def _names(index: IndexFacts) -> tuple[str, ...]:
    # A key is its column or expression, then order, class and collation as numbers.
    cut = -3 if index.method == "btree" else -2
    return tuple(" ".join(key.split(" ")[:cut]) for key in index.keys)


def _drop(index: IndexFacts) -> str:
    return f'DROP INDEX CONCURRENTLY "{index.schema}"."{index.index}"'
