"""VACUUM, ANALYZE and REINDEX where they are due, and nowhere else.

Invariant: one table at a time, under its advisory lock, with lock and statement timeouts, never
beside a backup. At the end of the window nothing more is begun; what is left is due again the next
night. What cannot be had now (a locked table, a statement that took too long) is skipped and told.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from samplemind.errors import InvalidInputError
from samplemind.log import get_logger
from samplemind.maintenance.bloat import Bloat, bloat_report
from samplemind.maintenance.locks import no_backup_runs, table_lock
from samplemind.maintenance.session import Row, Session, fetch, open_session
from samplemind.settings import Settings

UPKEEP = """
SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS table, c.relkind AS kind,
       greatest(c.reltuples, 0)::float8 AS rows, coalesce(s.n_dead_tup, 0) AS dead_rows,
       coalesce(s.n_ins_since_vacuum, 0) AS inserted_rows,
       coalesce(s.n_mod_since_analyze, 0) AS changed_rows,
       age(c.relfrozenxid) AS xid_age, mxid_age(c.relminmxid) AS multixact_age,
       current_setting('autovacuum_freeze_max_age')::bigint AS freeze_max_age,
       current_setting('autovacuum_multixact_freeze_max_age')::bigint AS multixact_max_age
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_user_tables AS s ON s.relid = c.oid
WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
"""
_LEFTOVERS = """
SELECT n.nspname AS schema, c.relname AS index
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND c.relname ~ '_cc(new|old)\\d*$' AND c.relkind = 'i'
  AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index AS p WHERE p.relid = i.indrelid)
"""

# The largest recall that any setting of the search reached when it was measured last.
_GRAPHS = """
SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS index,
       pg_relation_size(c.oid) AS size_bytes, (SELECT max(recall) FROM search_recall) AS recall
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_am AS am ON am.oid = c.relam
WHERE am.amname = 'hnsw' AND i.indisvalid AND i.indrelid = to_regclass('search_vectors')
"""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class UpkeepLimits:
    """From where on upkeep is due; shares are of the table's rows."""

    dead_rows: int = 1000
    dead_share: float = 0.05
    inserted_rows: int = 10_000
    inserted_share: float = 0.2
    changed_rows: int = 1000
    changed_share: float = 0.1
    age_share: float = 0.5  # of the age at which autovacuum would be forced
    bloat_share: float = 0.3
    bloat_bytes: int = 8 << 20


@dataclass(frozen=True, slots=True)
class Need:
    """Why a table needs upkeep, and which; the more urgent first in order."""

    oid: int
    schema: str
    table: str
    command: str
    reason: str
    urgency: float


@dataclass(frozen=True, slots=True)
class Done:
    """One upkeep that was done."""

    name: str
    command: str
    reason: str
    seconds: float


@dataclass(slots=True)
class UpkeepReport:
    """What was done, what was skipped and why, what the window was too short for."""

    done: list[Done] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Return what is recorded of the run."""
        return {
            "done": [f"{each.command} {each.name}" for each in self.done],
            "skipped": dict(self.skipped),
            "left": self.left,
        }


def find_needs(rows: Iterable[Row], limits: UpkeepLimits | None = None) -> list[Need]:
    """Return which tables need VACUUM or ANALYZE, the most urgent first; pure."""
    bounds = limits or UpkeepLimits()
    needs = [need for row in rows if (need := _need(row, bounds)) is not None]
    return sorted(needs, key=lambda need: -need.urgency)


def find_forgetful(graphs: Iterable[Row], target: float) -> list[Need]:
    """Return the HNSW graphs that no longer find what they should; pure.

    A graph that was never measured is not judged.
    """
    return [
        Need(
            oid=row["oid"],
            schema=row["schema"],
            table=row["index"],
            command="REINDEX INDEX CONCURRENTLY",
            reason=f"its best recall is {row['recall']:.3f}, and {target} is wanted",
            urgency=row["size_bytes"],
        )
        for row in graphs
        if row["recall"] is not None and row["recall"] < target
    ]


async def upkeep_needs(settings: Settings) -> list[Need]:
    """Return what `vacuum_due` would do now."""
    async with open_session(settings) as session:
        return find_needs(await fetch(session, UPKEEP))


async def vacuum_due(settings: Settings) -> UpkeepReport:
    """VACUUM (ANALYZE) the tables that need it, until the window ends.

    Raises:
        StoreUnavailableError: PostgreSQL did not answer.
    """
    timeout_ms = settings.maintenance.vacuum_timeout_s * 1000
    async with open_session(settings, statement_timeout_ms=timeout_ms) as session:
        return await _work(session, settings, find_needs(await fetch(session, UPKEEP)))


async def vacuum_tables(settings: Settings, tables: Sequence[str]) -> UpkeepReport:
    """VACUUM (ANALYZE) these tables, whether it is due or not.

    Raises:
        InvalidInputError: one does not exist.
    """
    return await _asked_for(settings, tables, "VACUUM (ANALYZE)")


async def analyze_tables(settings: Settings, tables: Sequence[str]) -> UpkeepReport:
    """Renew the planner's statistics of these tables.

    Raises:
        InvalidInputError: one does not exist.
    """
    return await _asked_for(settings, tables, "ANALYZE")


async def reindex_bloated(settings: Settings, limits: UpkeepLimits | None = None) -> UpkeepReport:
    """Build bloated B-trees, and graphs of too little recall, anew beside all traffic.

    One at a time, until the window ends.

    What a REINDEX CONCURRENTLY that broke has left (`…_ccnew`) goes first.
    """
    bounds = limits or UpkeepLimits()
    report = UpkeepReport()
    timeout_ms = settings.maintenance.vacuum_timeout_s * 1000
    async with open_session(settings, statement_timeout_ms=timeout_ms) as session:
        async with no_backup_runs(session) as alone:
            if not alone:
                report.skipped.append(("all", "a backup is running"))
                return report
            await _drop_leftovers(session, report)
            found = await bloat_report(session)
            graphs = await fetch(session, _GRAPHS)
            needs = [
                *find_forgetful(graphs, settings.search.recall_target),
                *(_reindex(each) for each in found.indexes if _is_bloated(each, bounds)),
            ]
        return await _work(session, settings, needs, report)


def _is_bloated(index: Bloat, limits: UpkeepLimits) -> bool:
    return index.share >= limits.bloat_share and index.wasted_bytes >= limits.bloat_bytes


def _reindex(index: Bloat) -> Need:
    return Need(
        oid=index.oid,
        schema=index.schema,
        table=index.name,
        command="REINDEX INDEX CONCURRENTLY",
        reason=f"{index.share:.0%} of {index.size_bytes / 2**20:.0f} MiB is air ({index.method})",
        urgency=index.wasted_bytes,
    )


def _need(row: Row, limits: UpkeepLimits) -> Need | None:
    rows = max(row["rows"], 1.0)

    def need(command: str, reason: str, urgency: float) -> Need:
        return Need(row["oid"], row["schema"], row["table"], command, reason, urgency)

    if row["kind"] != "p":
        oldest = max(
            row["xid_age"] / row["freeze_max_age"], row["multixact_age"] / row["multixact_max_age"]
        )
        if oldest >= limits.age_share:
            reason = f"its oldest transaction is at {oldest:.0%} of the age that forces a vacuum"
            return need("VACUUM (FREEZE, ANALYZE)", reason, 1000 * oldest)
        for count, least, share, words in (
            (row["dead_rows"], limits.dead_rows, limits.dead_share, "dead rows"),
            (
                row["inserted_rows"],
                limits.inserted_rows,
                limits.inserted_share,
                "rows inserted since the last vacuum",
            ),
        ):
            if count >= least and count >= rows * share:
                reason = f"{count} {words}, {count / rows:.0%} of the table"
                return need("VACUUM (ANALYZE)", reason, count / rows)
    changed = row["changed_rows"]
    if changed >= limits.changed_rows and changed >= rows * limits.changed_share:
        return need(
            "ANALYZE", f"{changed} rows changed since the last ANALYZE", changed / rows / 10
        )
    return None


async def _asked_for(settings: Settings, tables: Sequence[str], command: str) -> UpkeepReport:
    timeout_ms = settings.maintenance.vacuum_timeout_s * 1000
    async with open_session(settings, statement_timeout_ms=timeout_ms) as session:
        known = {row["table"]: row for row in await fetch(session, UPKEEP)}
        unknown = [table for table in tables if table not in known]
        if unknown:
            message = f"there is no table {', '.join(unknown)} in the database"
            raise InvalidInputError(message)
        needs = [
            Need(known[table]["oid"], known[table]["schema"], table, command, "asked for", 0)
            for table in tables
        ]
        return await _work(session, settings, needs)


async def _work(
    session: Session,
    settings: Settings,
    needs: Sequence[Need],
    report: UpkeepReport | None = None,
) -> UpkeepReport:
    report = report or UpkeepReport()
    ends = time.monotonic() + settings.maintenance.window_minutes * 60
    for number, need in enumerate(needs):
        if time.monotonic() >= ends:
            report.left = [each.table for each in needs[number:]]
            break
        # Asked for each table, so that a backup need not wait for the end of the window.
        async with no_backup_runs(session) as alone, table_lock(session, need.oid) as held:
            if not alone or not held:
                why = "a backup is running" if not alone else "another upkeep works on it"
                report.skipped.append((need.table, why))
            else:
                await _act(session, need, report)
    _log.info("upkeep_ended", **{name: len(value) for name, value in report.figures().items()})
    return report


async def _act(session: Session, need: Need, report: UpkeepReport) -> None:
    started = time.perf_counter()
    try:
        # Names come from the catalogue, quoted; the command is one of ours.
        await session.execute(f'{need.command} "{need.schema}"."{need.table}"')
    except psycopg.errors.LockNotAvailable:
        report.skipped.append((need.table, "it is locked by somebody else"))
    except psycopg.errors.QueryCanceled:
        report.skipped.append((need.table, "it took longer than maintenance.vacuum_timeout_s"))
    else:
        seconds = time.perf_counter() - started
        report.done.append(Done(need.table, need.command, need.reason, seconds))


async def _drop_leftovers(session: Session, report: UpkeepReport) -> None:
    for row in await fetch(session, _LEFTOVERS):
        started = time.perf_counter()
        await session.execute(f'DROP INDEX CONCURRENTLY "{row["schema"]}"."{row["index"]}"')
        seconds = time.perf_counter() - started
        report.done.append(
            Done(row["index"], "DROP INDEX CONCURRENTLY", "left by a broken REINDEX", seconds)
        )
