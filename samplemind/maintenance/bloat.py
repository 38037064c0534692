"""How much of tables and B-trees is air, how many rows are dead, how far wraparound is.

Where pgstattuple may be asked, sizes are measured (a sample of a large table's pages); otherwise
they are estimated from statistics: rows times mean width against pages. The estimate of a B-tree
follows its fill: entries of the mean width of its columns, 8 bytes of header, 4 of line pointer, in
pages of 8 KiB filled to 90 %.

Invariant: each figure says how it was found. A table or index below `_LEAST_BYTES` is left out:
its air is not worth a sentence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from psycopg.errors import InsufficientPrivilege, ObjectInUse, WrongObjectType

from samplemind.maintenance.session import Session, extensions, fetch

_LEAST_BYTES = 1 << 20
_MOST_MEASURED = 40
_EXACT_UP_TO_BYTES = 64 << 20

_TABLES = """
SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name,
       pg_relation_size(c.oid) AS size_bytes, c.reltuples AS rows,
       coalesce(s.n_dead_tup, 0) AS dead_rows, coalesce(s.n_live_tup, 0) AS live_rows,
       age(c.relfrozenxid) AS xid_age, mxid_age(c.relminmxid) AS multixact_age,
       coalesce((SELECT (regexp_match(option, 'fillfactor=(\\d+)'))[1]::int
                 FROM unnest(c.reloptions) AS option WHERE option LIKE 'fillfactor=%'), 100)
           AS fillfactor,
       coalesce((SELECT sum((1 - stanullfrac) * stawidth) FROM pg_statistic
                 WHERE starelid = c.oid AND NOT stainherit), 0)::float8 AS width,
       (SELECT count(*) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0
           AND NOT attisdropped) AS columns
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_user_tables AS s ON s.relid = c.oid
WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND n.nspname NOT LIKE 'pg_t%' AND c.relpersistence = 'p'
ORDER BY size_bytes DESC
"""
_BTREES = """
SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, t.relname AS table,
       pg_relation_size(c.oid) AS size_bytes, c.reltuples AS rows,
       coalesce((SELECT sum((1 - a.stanullfrac) * a.stawidth) FROM pg_statistic AS a
                 WHERE a.starelid = i.indrelid AND a.staattnum = ANY(i.indkey)
                   AND NOT a.stainherit), 0)::float8 AS width,
       (SELECT min(a.stadistinct) FROM pg_statistic AS a WHERE a.starelid = i.indrelid
           AND a.staattnum = i.indkey[0] AND NOT a.stainherit)::float8 AS distinct_values,
       0 = ANY(i.indkey) OR i.indpred IS NOT NULL AS is_special, i.indnkeyatts AS columns,
       i.indisunique AS is_unique
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_class AS t ON t.oid = i.indrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_am AS am ON am.oid = c.relam
WHERE am.amname = 'btree' AND c.relkind = 'i' AND i.indisvalid AND c.relpersistence = 'p'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg_t%'
ORDER BY size_bytes DESC
"""
_LIMITS = """
SELECT current_setting('autovacuum_freeze_max_age')::bigint AS freeze_max_age,
       (SELECT max(age(datfrozenxid)) FROM pg_database) AS oldest_database_age
"""
_WRAPAROUND = 2**31 - 3_000_000
"""Transactions after which the server stops taking new ones (PostgreSQL manual, 24.1.5)."""


class Method(StrEnum):
    """How a figure was found."""

    MEASURED = "pgstattuple"
    SAMPLED = "pgstattuple_approx"
    ESTIMATED = "estimate"


@dataclass(frozen=True, slots=True)
class Bloat:
    """A table's or B-tree's air; `wasted_bytes` are what writing it anew would give back."""

    name: str
    table: str
    schema: str
    oid: int
    size_bytes: int
    wasted_bytes: int
    method: Method

    @property
    def share(self) -> float:
        """Wasted bytes of all, 0..1."""
        return self.wasted_bytes / self.size_bytes if self.size_bytes else 0.0


@dataclass(frozen=True, slots=True)
class DeadRows:
    """Rows that nobody sees any more, and how old the oldest transaction id in the table is."""

    table: str
    schema: str
    oid: int
    live_rows: int
    dead_rows: int
    size_bytes: int
    xid_age: int
    multixact_age: int


@dataclass(frozen=True, slots=True)
class BloatReport:
    """Everything of this module, the most wasteful first."""

    tables: tuple[Bloat, ...]
    indexes: tuple[Bloat, ...]
    dead_rows: tuple[DeadRows, ...]
    oldest_xid_age: int
    freeze_max_age: int

    @property
    def transactions_left(self) -> int:
        """Transactions until the server would refuse new ones."""
        return max(0, _WRAPAROUND - self.oldest_xid_age)


async def bloat_report(session: Session) -> BloatReport:
    """Measure or estimate the bloat of every table and B-tree of a megabyte and more."""
    measures = "pgstattuple" in await extensions(session)
    [limits] = await fetch(session, _LIMITS)
    table_rows = await fetch(session, _TABLES)
    tables: list[Bloat] = []
    indexes: list[Bloat] = []
    for row in table_rows:
        if row["size_bytes"] >= _LEAST_BYTES:
            measured = measures and len(tables) < _MOST_MEASURED
            tables.append(await _table(session, row, measures=measured))
    for row in await fetch(session, _BTREES):
        if row["size_bytes"] >= _LEAST_BYTES:
            measured = measures and len(indexes) < _MOST_MEASURED
            bloat = await _index(session, row, measures=measured)
            if bloat is not None:
                indexes.append(bloat)
    return BloatReport(
        tables=tuple(sorted(tables, key=lambda each: -each.wasted_bytes)),
        indexes=tuple(sorted(indexes, key=lambda each: -each.wasted_bytes)),
        dead_rows=tuple(
            sorted((_dead(row) for row in table_rows), key=lambda each: -each.dead_rows)
        ),
        oldest_xid_age=int(limits["oldest_database_age"]),
        freeze_max_age=int(limits["freeze_max_age"]),
    )


async def _table(session: Session, row: Mapping[str, object], *, measures: bool) -> Bloat:
    size = _whole(row["size_bytes"])
    if measures:
        try:
            [found] = await fetch(
                session,
                "SELECT approx_free_space + dead_tuple_len AS wasted "
                "FROM pgstattuple_approx(%(oid)s::oid)",
                {"oid": row["oid"]},
            )
            # What the fillfactor keeps free for updates is not wasted.
            reserved = size * (100 - _whole(row["fillfactor"])) // 100
            wasted = max(0, _whole(found["wasted"]) - reserved)
            return _bloat(row, wasted, Method.SAMPLED)
        except (InsufficientPrivilege, ObjectInUse, WrongObjectType):
            pass  # the estimate below asks for nothing
    return _bloat(row, estimate_table_waste(row), Method.ESTIMATED)


async def _index(session: Session, row: Mapping[str, object], *, measures: bool) -> Bloat | None:
    size = _whole(row["size_bytes"])
    if measures and size <= _EXACT_UP_TO_BYTES:
        try:
            [found] = await fetch(
                session,
                "SELECT avg_leaf_density AS density FROM pgstatindex(%(oid)s::oid::regclass)",
                {"oid": row["oid"]},
            )
        except (InsufficientPrivilege, ObjectInUse, WrongObjectType):
            pass
        else:
            density = float(found["density"]) / 100
            return _bloat(row, int(size * max(0.0, 1 - density / 0.9)), Method.MEASURED)
    if row["is_special"]:
        return None  # an expression's or a part's width is in no statistics: no figure, no claim
    return _bloat(row, estimate_btree_waste(row), Method.ESTIMATED)


def estimate_table_waste(row: Mapping[str, object]) -> int:
    """Return the bytes that a table has beyond what its rows need, from the statistics alone."""
    rows, size = _number(row["rows"]), _whole(row["size_bytes"])
    if rows <= 0 or not row["width"]:
        return 0
    # Row header with null bitmap, rounded up to 8 bytes, and a line pointer (manual, 66.6).
    header = 23 + (_whole(row["columns"]) + 7) // 8
    tuple_bytes = -(-(header) // 8) * 8 + -(-int(_number(row["width"])) // 8) * 8 + 4
    per_page = max(1, int((8192 - 24) * _whole(row["fillfactor"]) / 100 / tuple_bytes))
    return max(0, size - int(-(-rows // per_page)) * 8192)


def estimate_btree_waste(row: Mapping[str, object]) -> int:
    """Return the bytes that a B-tree has beyond what its entries need, from the statistics alone.

    Equal entries are stored once with a list of their rows (6 bytes each), unless it is unique.
    """
    rows, size = _number(row["rows"]), _whole(row["size_bytes"])
    if rows <= 0 or not row["width"]:
        return 0
    entry = -(-(8 + int(_number(row["width"]))) // 8) * 8 + 4
    distinct = _number(row["distinct_values"] or -1)
    distinct = -distinct * rows if distinct < 0 else distinct
    if not row["is_unique"] and _whole(row["columns"]) == 1 and distinct < rows / 2:
        needed = distinct * entry + rows * 6
    else:
        needed = rows * entry
    pages = -(-needed // ((8192 - 40) * 0.9)) * 1.01 + 1  # inner pages are about one in a hundred
    return max(0, size - int(pages) * 8192)


def _bloat(row: Mapping[str, object], wasted: int, method: Method) -> Bloat:
    return Bloat(
        name=str(row["name"]),
        table=str(row.get("table", row["name"])),
        schema=str(row["schema"]),
        oid=_whole(row["oid"]),
        size_bytes=_whole(row["size_bytes"]),
        wasted_bytes=wasted,
        method=method,
    )


def _dead(row: Mapping[str, object]) -> DeadRows:
    return DeadRows(
        table=str(row["name"]),
        schema=str(row["schema"]),
        oid=_whole(row["oid"]),
        live_rows=_whole(row["live_rows"]),
        dead_rows=_whole(row["dead_rows"]),
        size_bytes=_whole(row["size_bytes"]),
        xid_age=_whole(row["xid_age"]),
        multixact_age=_whole(row["multixact_age"]),
    )


def _whole(value: object) -> int:
    return int(_number(value))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float(str(value))
