"""What makes queries slow, and what would make them fast.

Invariant: it looks and never changes anything. A query is run only where `analyze` asks for it,
then under a statement timeout inside a transaction that is rolled back. (A rollback does not take
back what a sequence gave out, or what a function did outside of the database.)
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from samplemind.errors import InvalidInputError, NotFoundError
from samplemind.maintenance.bloat import BloatReport, bloat_report
from samplemind.maintenance.findings import PlanFinding, find_problems
from samplemind.maintenance.index_suggestions import (
    IndexSuggestion,
    WorkloadQuery,
    suggest_indexes,
)
from samplemind.maintenance.index_usage import IndexFinding, find_useless, read_indexes
from samplemind.maintenance.plans import Plan, parse_plan
from samplemind.maintenance.session import Session, fetch, open_session
from samplemind.maintenance.slow_queries import SlowOrder, SlowStatement, slow_statements
from samplemind.maintenance.vacuum import UpkeepReport, vacuum_tables
from samplemind.settings import Settings

_PLACEHOLDER = re.compile(r"\$\d")
_SECOND_STATEMENT = re.compile(r";\s*\S")
_PLANNABLE = re.compile(r"^\s*(select|with|update|delete|insert|merge)\b", re.IGNORECASE)
_LARGE_TABLE_ROWS = 10_000
_WORKLOAD = 200

_TABLE_ROWS = """
SELECT c.relname AS name, greatest(c.reltuples, 0)::float8 AS rows FROM pg_class AS c
WHERE c.relname = ANY(%(names)s) AND c.relkind IN ('r', 'p', 'm')
"""
TABLE_STATS = """
SELECT s.relid::bigint AS oid, s.schemaname AS schema, s.relname AS table,
       n_live_tup AS live_rows, n_dead_tup AS dead_rows, n_mod_since_analyze AS changed_rows,
       n_ins_since_vacuum AS inserted_rows, seq_scan AS sequential_scans,
       coalesce(idx_scan, 0) AS index_scans, seq_tup_read AS rows_read_in_sequence,
       pg_table_size(s.relid) AS table_bytes, pg_indexes_size(s.relid) AS index_bytes,
       greatest(last_vacuum, last_autovacuum) AS vacuumed_at,
       greatest(last_analyze, last_autoanalyze) AS analyzed_at,
       (100.0 * n_tup_hot_upd / nullif(n_tup_upd, 0))::float8 AS hot_percent
FROM pg_stat_user_tables AS s
WHERE s.schemaname NOT LIKE 'pg_temp%%' AND (%(table)s::text IS NULL OR s.relname = %(table)s)
ORDER BY pg_total_relation_size(s.relid) DESC
"""


@dataclass(frozen=True, slots=True)
class QueryReport:
    """A query's plan and what is wrong with it."""

    plan: Plan
    findings: tuple[PlanFinding, ...]
    analyzed: bool


@dataclass(frozen=True, slots=True)
class TableReport:
    """One table by the server's counters."""

    oid: int
    schema: str
    table: str
    live_rows: int
    dead_rows: int
    changed_rows: int
    inserted_rows: int
    sequential_scans: int
    index_scans: int
    rows_read_in_sequence: int
    table_bytes: int
    index_bytes: int
    vacuumed_at: datetime | None
    analyzed_at: datetime | None
    hot_percent: float | None


@dataclass(frozen=True, slots=True)
class MissingIndex:
    """A large table that is read whole again and again."""

    table: str
    rows: int
    sequential_scans: int
    rows_read_a_scan: float
    index_scans: int


class QueryOptimizer:
    """Looks at one database; each call opens a session of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def analyze_query(
        self,
        sql: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        analyze: bool = False,
    ) -> QueryReport:
        """Return the plan of one statement and what is wrong with it.

        Args:
            sql: one statement, with `%s` or `%(name)s` for the parameters; or with `$1`, `$2` and
                no parameters, as pg_stat_statements shows it, for the plan that fits all values.
            params: the values.
            analyze: run it, which alone tells actual rows, spills and discarded rows.

        Raises:
            InvalidInputError: it is no single statement, or PostgreSQL does not take it.
            TransientError: it ran longer than `maintenance.explain_timeout_ms`.
        """
        statement = sql.strip().rstrip(";")
        generic = params is None and _PLACEHOLDER.search(statement) is not None
        if not is_plannable(statement) or (generic and _SECOND_STATEMENT.search(statement)):
            message = "one statement is needed: SELECT, WITH, INSERT, UPDATE, DELETE or MERGE"
            raise InvalidInputError(message)
        if generic and analyze:
            message = "a statement with $1 cannot be run: give its values as parameters"
            raise InvalidInputError(message)
        options = ["VERBOSE", "FORMAT JSON"]
        options += ["ANALYZE", "BUFFERS"] if analyze else ["GENERIC_PLAN"] if generic else []
        explain = f"EXPLAIN ({', '.join(options)}) {statement}"
        async with self._session() as session:
            async with session.transaction(force_rollback=True):
                # The extended protocol, which `binary` asks for, takes one statement and no more.
                cursor = await session.execute(
                    explain,
                    params,
                    binary=not generic,
                )
                [row] = await cursor.fetchall()
            plan = parse_plan(row["QUERY PLAN"])
            names = sorted({node.relation for node in plan.nodes() if node.relation})
            rows = await fetch(session, _TABLE_ROWS, {"names": names})
        sizes = {each["name"]: each["rows"] for each in rows}
        return QueryReport(plan, tuple(find_problems(plan, sizes)), analyze)

    async def suggest_indexes(
        self, workload: Sequence[WorkloadQuery] | None = None
    ) -> list[IndexSuggestion]:
        """Return the indexes that the workload is missing, each proven with the planner.

        Args:
            workload: normalised statements; None: those that pg_stat_statements has.
        """
        async with self._session() as session:
            if workload is None:
                workload = await self._workload(session)
            return await suggest_indexes(session, workload)

    async def optimize_table(self, table: str) -> UpkeepReport:
        """VACUUM (ANALYZE) one table now, whether it is due or not.

        Raises:
            NotFoundError: there is no such table.
        """
        await self.get_table_stats(table)
        return await vacuum_tables(self._settings, [table])

    async def get_table_stats(self, table: str | None = None) -> list[TableReport]:
        """Return the counters of one table or of all, the largest first.

        Raises:
            NotFoundError: there is no such table.
        """
        async with self._session() as session:
            rows = await fetch(session, TABLE_STATS, {"table": table})
        if table is not None and not rows:
            message = f"there is no table {table!r} in the database"
            raise NotFoundError(message)
        return [TableReport(**row) for row in rows]

    async def get_slow_queries(
        self, *, order: SlowOrder = SlowOrder.TOTAL, limit: int = 20
    ) -> Sequence[SlowStatement]:
        """Return the statements that cost most."""
        async with self._session() as session:
            return await slow_statements(session, order=order, limit=limit)

    async def get_missing_indexes(self) -> list[MissingIndex]:
        """Return the large tables that are read whole more often than by an index."""
        return find_missing(await self.get_table_stats())

    async def get_index_usage(self) -> list[IndexFinding]:
        """Return the indexes that are unused, duplicate, redundant or invalid."""
        async with self._session() as session:
            return find_useless(await read_indexes(session), datetime.now(UTC))

    async def get_bloat_report(self) -> BloatReport:
        """Return the air in tables and B-trees, dead rows, and how far wraparound is."""
        async with self._session() as session:
            return await bloat_report(session)

    async def _workload(self, session: Session) -> list[WorkloadQuery]:
        found = await slow_statements(session, limit=_WORKLOAD)
        return [WorkloadQuery(each.query, each.calls) for each in found if is_plannable(each.query)]

    def _session(self) -> Any:
        timeout = self._settings.maintenance.explain_timeout_ms
        return open_session(self._settings, statement_timeout_ms=timeout)


def find_missing(tables: Sequence[TableReport]) -> list[MissingIndex]:
    """Return the large tables whose sequential scans read most, the most rows first.

    A scan that reads few rows of a large table was ended by a LIMIT, and is no sign.
    """
    found = []
    for each in tables:
        if each.live_rows < _LARGE_TABLE_ROWS or each.sequential_scans < 10:
            continue
        a_scan = each.rows_read_in_sequence / each.sequential_scans
        if a_scan < each.live_rows / 2 or each.sequential_scans <= each.index_scans / 10:
            continue
        found.append(
            MissingIndex(
                each.table, each.live_rows, each.sequential_scans, a_scan, each.index_scans
            )
        )
    return sorted(found, key=lambda each: -each.sequential_scans * each.rows_read_a_scan)


def is_plannable(statement: str) -> bool:
    """Return whether EXPLAIN takes it: a query or a change of rows."""
    return _PLANNABLE.match(statement) is not None
