"""The database's health on one page: the worst first, what to do, what it would win.

Invariant: gathering reads and judging is pure. Every item carries the numbers that it stands on;
a healthy database has an empty list.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from samplemind.maintenance.bloat import Bloat, BloatReport, bloat_report
from samplemind.maintenance.index_suggestions import (
    IndexSuggestion,
    WorkloadQuery,
    suggest_indexes,
)
from samplemind.maintenance.index_usage import IndexFinding, find_useless, read_indexes
from samplemind.maintenance.query_optimizer import (
    TABLE_STATS,
    MissingIndex,
    TableReport,
    find_missing,
    is_plannable,
)
from samplemind.maintenance.session import fetch, open_session
from samplemind.maintenance.slow_queries import SlowStatement, slow_statements
from samplemind.maintenance.vacuum import UPKEEP, Need, UpkeepLimits, find_needs
from samplemind.settings import Settings

_SLOWEST = 20
_SUGGESTED_FROM = 30
_SLOW_MEAN_MS = 100
_SLOW_SHARE_PERCENT = 5
_SLOW_CALLS = 10
_STATEMENT_TIMEOUT_MS = 30_000
_DATABASE = """
SELECT current_database() AS name, pg_database_size(current_database()) AS size_bytes,
       current_setting('server_version') AS version,
       (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()) AS sessions,
       (SELECT round(blks_hit / nullif(blks_hit + blks_read, 0)::numeric, 4)::float8
        FROM pg_stat_database WHERE datname = current_database()) AS cache_hits
"""


class Severity(StrEnum):
    """How soon something must be done."""

    CRITICAL = "critical"
    WARNING = "warning"
    ADVICE = "advice"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to do."""

    severity: Severity
    subject: str
    problem: str
    evidence: Mapping[str, Any]
    action: str
    wins: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What was read, before anything is judged."""

    database: Mapping[str, Any]
    tables: tuple[TableReport, ...]
    bloat: BloatReport
    needs: tuple[Need, ...]
    missing: tuple[MissingIndex, ...]
    useless: tuple[IndexFinding, ...]
    suggestions: tuple[IndexSuggestion, ...]
    slow: tuple[SlowStatement, ...]


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The report: figures, and what follows from them."""

    made_at: datetime
    seconds: float
    figures: Figures
    items: tuple[Item, ...]


async def health_report(settings: Settings) -> HealthReport:
    """Read everything and judge it.

    Raises:
        StoreUnavailableError: PostgreSQL did not answer.
    """
    started = datetime.now(UTC)
    figures = await _gather(settings, started)
    seconds = (datetime.now(UTC) - started).total_seconds()
    return HealthReport(started, seconds, figures, tuple(judge(figures)))


async def _gather(settings: Settings, now: datetime) -> Figures:
    async with open_session(settings, statement_timeout_ms=_STATEMENT_TIMEOUT_MS) as session:
        [database] = await fetch(session, _DATABASE)
        tables = [TableReport(**row) for row in await fetch(session, TABLE_STATS, {"table": None})]
        slow = await slow_statements(session, limit=_SUGGESTED_FROM)
        workload = [
            WorkloadQuery(each.query, each.calls) for each in slow if is_plannable(each.query)
        ]
        return Figures(
            database=database,
            tables=tuple(tables),
            bloat=await bloat_report(session),
            needs=tuple(find_needs(await fetch(session, UPKEEP))),
            missing=tuple(find_missing(tables)),
            useless=tuple(find_useless(await read_indexes(session), now)),
            suggestions=tuple(await suggest_indexes(session, workload)),
            slow=tuple(slow[:_SLOWEST]),
        )


def judge(figures: Figures) -> list[Item]:
    """Return what is to be done, the most urgent first."""
    items = [
        *_wraparound(figures.bloat),
        *(_suggestion(each) for each in figures.suggestions),
        *(_missing(each) for each in figures.missing if not _is_suggested(each, figures)),
        *(_need(each) for each in figures.needs),
        *(_bloated(each, is_index=False) for each in _swollen(figures.bloat.tables)),
        *(_bloated(each, is_index=True) for each in _swollen(figures.bloat.indexes)),
        *(_useless(each) for each in figures.useless),
        *(_slow(each) for each in figures.slow if _is_slow(each)),
    ]
    order = list(Severity)
    return sorted(items, key=lambda item: order.index(item.severity))


def _wraparound(bloat: BloatReport) -> list[Item]:
    share = bloat.oldest_xid_age / bloat.freeze_max_age
    if share < 1:
        return []
    return [
        Item(
            Severity.CRITICAL if share > 2 else Severity.WARNING,
            "transaction ids",
            "autovacuum does not keep up with freezing",
            {"oldest_age": bloat.oldest_xid_age, "transactions_left": bloat.transactions_left},
            "samplemind db vacuum (then look for old transactions and replication slots)",
            "the server stops taking writes when none are left",
        )
    ]


def _suggestion(each: IndexSuggestion) -> Item:
    return Item(
        Severity.WARNING,
        f"{each.table} ({', '.join(each.keys)})",
        "an index is missing",
        {
            "cost_before": round(each.cost_before, 1),
            "cost_after": round(each.cost_after, 1),
            "size_bytes": each.size_bytes,
            "queries": len(each.serves),
            "calls": sum(query.calls for query in each.serves),
            "proof": each.method.value,
        },
        each.sql,
        f"{each.gain / each.cost_before:.0%} of the cost of {len(each.serves)} statements, for "
        f"{each.size_bytes / 2**20:.1f} MiB",
    )


def _is_suggested(missing: MissingIndex, figures: Figures) -> bool:
    return any(each.table == missing.table for each in figures.suggestions)


def _missing(each: MissingIndex) -> Item:
    return Item(
        Severity.ADVICE,
        each.table,
        "it is read whole again and again",
        {
            "rows": each.rows,
            "sequential_scans": each.sequential_scans,
            "rows_read_a_scan": round(each.rows_read_a_scan),
            "index_scans": each.index_scans,
        },
        "find the statement with `samplemind db slow` and look at it with `samplemind db explain`",
        "the time of these scans, if an index can serve them",
    )


def _need(each: Need) -> Item:
    return Item(
        Severity.WARNING if each.urgency >= UpkeepLimits().dead_share * 4 else Severity.ADVICE,
        each.table,
        each.reason,
        {"urgency": round(each.urgency, 3)},
        f"samplemind db vacuum {each.table}",
        "current statistics, and space that new rows can take",
    )


def _swollen(found: tuple[Bloat, ...]) -> list[Bloat]:
    limits = UpkeepLimits()
    return [
        each
        for each in found
        if each.share >= limits.bloat_share and each.wasted_bytes >= limits.bloat_bytes
    ]


def _bloated(each: Bloat, *, is_index: bool) -> Item:
    return Item(
        Severity.ADVICE,
        each.name,
        f"{each.share:.0%} of it is air",
        {
            "size_bytes": each.size_bytes,
            "wasted_bytes": each.wasted_bytes,
            "found_by": each.method.value,
        },
        f'REINDEX INDEX CONCURRENTLY "{each.schema}"."{each.name}"'
        if is_index
        else f'VACUUM (FULL) "{each.schema}"."{each.name}" in a window without traffic: it locks',
        f"{each.wasted_bytes / 2**20:.1f} MiB",
    )


def _useless(each: IndexFinding) -> Item:
    return Item(
        Severity.ADVICE,
        each.index,
        f"the index is {each.problem.value}: {each.recommendation}",
        each.evidence,
        each.sql,
        f"{float(each.evidence['size_bytes']) / 2**20:.1f} MiB, and time of every write",
    )


def _is_slow(each: SlowStatement) -> bool:
    return each.calls >= _SLOW_CALLS and (
        each.mean_ms >= _SLOW_MEAN_MS and each.share_percent >= _SLOW_SHARE_PERCENT
    )


def _slow(each: SlowStatement) -> Item:
    return Item(
        Severity.ADVICE,
        " ".join(each.query.split())[:100],
        "a statement is slow and common",
        {
            "calls": each.calls,
            "mean_ms": round(each.mean_ms, 2),
            "share_percent": round(each.share_percent, 1),
            "blocks_read": each.blocks_read,
        },
        "look at its plan with `samplemind db explain`",
        f"up to {each.share_percent:.0f} % of the time that statements take",
    )
