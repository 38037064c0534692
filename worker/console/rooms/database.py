"""Database: what is wrong, what is slow, indexes, bloat, locks; vacuuming and analysing tables."""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from samplemind.errors import InvalidInputError
from samplemind.jobs.payloads import AnalyzeTables, Payload, ReindexBloated, VacuumDue, VacuumTables
from samplemind.jobs.state import JobArea
from samplemind.maintenance.activity import Activity, activity
from samplemind.maintenance.query_optimizer import QueryOptimizer
from samplemind.maintenance.report import HealthReport, Item, Severity, health_report
from samplemind.maintenance.slow_queries import SlowOrder
from worker.console import wording
from worker.console.reading import Panel, Reading, Subject
from worker.console.room import Action, Outcome, Page, Problem, Room

_TABLE = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_STATEMENTS = 20
_TABLES = 60
_JOBS = 5
_CROWDED = 0.85
_WAITS_LONG_S = 5.0
_MEND = "`samplemind db report` says more; `samplemind doctor` whether the server is there"
_ORDERS = (
    (SlowOrder.TOTAL, "all time"),
    (SlowOrder.MEAN, "mean"),
    (SlowOrder.IO, "disk"),
)


class DatabasePage(Page):
    """The health of PostgreSQL."""

    template, room = "database.html", "database"

    def panels(self, *_: str) -> Mapping[str, Panel]:
        """Read what happens now, what is slow, and the report, which takes seconds."""
        settings, order = self.connections.settings, self._order()
        return {
            "now": Panel(partial(activity, settings), fresh_s=2, mend=_MEND),
            "slow": Panel(
                partial(QueryOptimizer(settings).get_slow_queries, order=order, limit=_STATEMENTS),
                key=(order,),
                fresh_s=5,
                mend=_MEND,
            ),
            # It measures bloat and proves indexes: whoever looks shares one reading.
            "report": Panel(
                partial(health_report, settings), fresh_s=120, timeout_s=90, mend=_MEND
            ),
            "jobs": self.jobs_panel(JobArea.MAINTENANCE, _JOBS),
        }

    def facts(self, readings: Mapping[str, Reading]) -> Mapping[str, Any]:
        """Return what is wrong, the worst first, and in which order statements stand."""
        now, report = readings["now"], readings["report"]
        found: HealthReport | None = report.value if report.ready else None
        problems = find_problems(now.value) if now.ready else []
        return {
            "problems": problems + judge_report(found),
            "advice": [item for item in found.items if item.severity is Severity.ADVICE]
            if found
            else [],
            "figures": found.figures if found else None,
            "tables": found.figures.tables[:_TABLES] if found else (),
            "bloat": [
                each
                for each in (*found.figures.bloat.tables, *found.figures.bloat.indexes)
                if each.wasted_bytes
            ]
            if found
            else [],
            "orders": _ORDERS,
            "order": self._order(),
            "evidence_of": evidence_of,
        }

    def _order(self) -> SlowOrder:
        given = self.text("by")
        return SlowOrder(given) if given in tuple(SlowOrder) else SlowOrder.TOTAL


class DatabaseAction(Action):
    """Upkeep, done by a worker under the locks that all upkeep takes."""

    resource_kind: ClassVar[str] = "table"
    changes: ClassVar[tuple[Subject, ...]] = (Subject.JOBS,)

    async def send(self, payload: Payload, key: str, what: str, table: str | None) -> Outcome:
        """Send a job about a table, unless the same one waits or runs."""
        job_id = await self.enqueue(payload, key)
        return Outcome(
            f"{what}: it is under way, and shows under Upkeep.",
            details={"job_id": job_id},
            resource_id=table,
        )

    def table(self) -> str:
        """Return the table that was asked for.

        Raises:
            InvalidInputError: it is no table's name.
        """
        name = self.text("table").strip()
        if not _TABLE.fullmatch(name):
            message = f"{name[:80]!r} is no table's name"
            raise InvalidInputError(message)
        return name


class VacuumTable(DatabaseAction):
    """VACUUM and ANALYZE of one table."""

    action = "console.vacuum_table"
    question = "VACUUM and ANALYZE this table now?"

    async def act(self, *_: str) -> Outcome:
        """Send the job."""
        table = self.table()
        await QueryOptimizer(self.connections.settings).get_table_stats(table)
        payload = VacuumTables(tables=(table,))
        return await self.send(payload, f"vacuum {table}", f"VACUUM of {table}", table)


class AnalyzeTable(DatabaseAction):
    """ANALYZE of one table."""

    action = "console.analyze_table"
    question = "Renew the planner's statistics of this table now?"

    async def act(self, *_: str) -> Outcome:
        """Send the job."""
        table = self.table()
        await QueryOptimizer(self.connections.settings).get_table_stats(table)
        payload = AnalyzeTables(tables=(table,))
        return await self.send(payload, f"analyze {table}", f"ANALYZE of {table}", table)


class VacuumAllDue(DatabaseAction):
    """VACUUM and ANALYZE wherever it is due."""

    action = "console.vacuum_due"
    changes = (Subject.JOBS, Subject.SCHEDULE)
    resource_kind = "database"
    question = "VACUUM and ANALYZE every table that needs it?"

    async def act(self, *_: str) -> Outcome:
        """Send the job as a run of the schedule."""
        job_id = await self.run_recurring(VacuumDue())
        return Outcome("Every table that needs it is being done.", details={"job_id": job_id})


class ReindexAllBloated(DatabaseAction):
    """Builds bloated indexes anew."""

    action = "console.reindex_bloated"
    changes = (Subject.JOBS, Subject.SCHEDULE)
    resource_kind = "database"
    question = "Build bloated indexes anew, one at a time, beside all traffic?"

    async def act(self, *_: str) -> Outcome:
        """Send the job as a run of the schedule."""
        job_id = await self.run_recurring(ReindexBloated())
        return Outcome("Bloated indexes are being built anew.", details={"job_id": job_id})


def find_problems(now: Activity) -> list[Problem]:
    """Return what is wrong at this moment, the worst first; pure."""
    found = []
    stuck = [each for each in now.waiting if (each.waiting_s or 0) >= _WAITS_LONG_S]
    if stuck:
        worst = max(stuck, key=lambda each: each.waiting_s or 0)
        holders = ", ".join(map(str, worst.blockers)) or "somebody"
        text = (
            f"{len(stuck)} {'session waits' if len(stuck) == 1 else 'sessions wait'} for a lock, "
            f"one for {wording.duration(worst.waiting_s)}: process {holders} holds it"
        )
        mend = f"let it end, or end it: `SELECT pg_terminate_backend({holders})`"
        found.append(Problem("danger", text, mend))
    if now.connected > _CROWDED * now.most_connections:
        text = f"{now.connected} of {now.most_connections} connections are taken"
        found.append(Problem("danger", text, "look which application holds them, below"))
    idle = [each for each in now.long if each.state.startswith("idle in transaction")]
    if idle:
        oldest = max(idle, key=lambda each: each.transaction_s)
        text = (
            f"A transaction does nothing and is open for {wording.duration(oldest.transaction_s)} "
            f"({oldest.application}, process {oldest.pid})"
        )
        found.append(Problem("warning", text, "nothing that died since can be vacuumed: end it"))
    return found


def judge_report(report: HealthReport | None) -> list[Problem]:
    """Return what the report calls critical or a warning."""
    looks = {Severity.CRITICAL: "danger", Severity.WARNING: "warning"}
    return [
        Problem(looks[item.severity], f"{item.subject}: {item.problem}", item.action)
        for item in (report.items if report else ())
        if item.severity in looks
    ]


def evidence_of(item: Item) -> str:
    """Return the figures that an item stands on, in a line."""
    return ", ".join(f"{wording.words(name)} {value}" for name, value in item.evidence.items())


ROOM = Room(
    "database",
    "Database",
    (
        ("/database", DatabasePage),
        ("/database/vacuum", VacuumTable),
        ("/database/analyze", AnalyzeTable),
        ("/database/vacuum-due", VacuumAllDue),
        ("/database/reindex", ReindexAllBloated),
    ),
)
