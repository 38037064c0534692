"""`samplemind db`: how the database is, why a query is slow, and upkeep by hand."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from samplemind.cache.reports import database_report
from samplemind.cli.output import console, json_option, print_json, print_table
from samplemind.cli.session import with_connections
from samplemind.connections.resources import Connections
from samplemind.errors import InvalidInputError
from samplemind.maintenance import report_pages
from samplemind.maintenance.activity import activity
from samplemind.maintenance.bloat import BloatReport
from samplemind.maintenance.query_optimizer import QueryOptimizer, QueryReport
from samplemind.maintenance.report import HealthReport, health_report
from samplemind.maintenance.slow_queries import SlowOrder
from samplemind.maintenance.statements import Trends, trends
from samplemind.maintenance.vacuum import (
    UpkeepReport,
    reindex_bloated,
    upkeep_needs,
    vacuum_due,
    vacuum_tables,
)
from samplemind.settings import Settings, get_settings

_T = TypeVar("_T")
_MIB = 2**20


@click.group()
def db() -> None:
    """How the database is, why a query is slow, and upkeep by hand.

    Example: samplemind db report
    """


@db.command(name="report")
@click.option("--markdown", "form", flag_value="markdown", help="For a ticket, on stdout.")
@click.option("--html", "form", flag_value="html", help="One page with charts, on stdout.")
@click.option("--output", type=click.Path(path_type=Path), help="A file instead of stdout.")
@click.option(
    "--recent", is_flag=True, help="With --json, for dashboards: one of the last five minutes."
)
@json_option
def report_health(form: str | None, output: Path | None, recent: bool, as_json: bool) -> None:
    """What is wrong, the worst first: evidence, what to do, what it would win.

    Example: samplemind db report --html --output report.html
    """
    if recent:
        if not as_json:
            message = "a recent report is for dashboards: add --json"
            raise click.UsageError(message)
        print_json(with_connections(database_report))
        return
    found = _run(health_report)
    if as_json:
        print_json(report_pages.as_json(found))
        return
    if form is None and output is None:
        _print_report(found)
        return
    text = report_pages.as_html(found) if form == "html" else report_pages.as_markdown(found)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
        console.print(f"Written to {output}", markup=False)


@db.command()
@click.argument("sql")
@click.option("--param", "params", multiple=True, help="A value for each %s, in order.")
@click.option("--analyze", is_flag=True, help="Run it, in a transaction that is rolled back.")
@json_option
def explain(sql: str, params: tuple[str, ...], analyze: bool, as_json: bool) -> None:
    """The plan of a statement and what is wrong with it; `-` reads it from stdin.

    Example: samplemind db explain "SELECT * FROM users WHERE email = %s" --param ada@example.org
    """
    text = sys.stdin.read() if sql == "-" else sql

    async def work(settings: Settings) -> QueryReport:
        optimizer = QueryOptimizer(settings)
        return await optimizer.analyze_query(text, list(params) or None, analyze=analyze)

    found = _run(work)
    if as_json:
        print_json(
            {
                "analyzed": found.analyzed,
                "planning_ms": found.plan.planning_ms,
                "execution_ms": found.plan.execution_ms,
                "cost": found.plan.root.cost,
                "plan": found.plan.root.details,
                "findings": [asdict(each) for each in found.findings],
            }
        )
        return
    print_table(
        ["node", "cost", "rows", "actual rows", "loops", "ms"],
        (
            (node.label, node.cost, node.rows, node.actual_rows, node.loops, node.milliseconds)
            for node in found.plan.nodes()
        ),
    )
    _print_findings(found)


@db.command()
@click.option("--suggest", is_flag=True, help="Also what the workload is missing, proven.")
@json_option
def indexes(suggest: bool, as_json: bool) -> None:
    """Indexes that are unused, duplicate, redundant or invalid; with --suggest missing ones.

    Example: samplemind db indexes --suggest
    """

    async def work(settings: Settings) -> dict[str, list[dict[str, Any]]]:
        optimizer = QueryOptimizer(settings)
        found = {
            "useless": [asdict(each) for each in await optimizer.get_index_usage()],
            "read_whole": [asdict(each) for each in await optimizer.get_missing_indexes()],
        }
        if suggest:
            found["suggestions"] = [
                {**asdict(each), "gain": each.gain} for each in await optimizer.suggest_indexes()
            ]
        return found

    found = _run(work)
    if as_json:
        print_json(found)
        return
    print_table(
        ["index", "table", "problem", "why", "statement"],
        (
            (each["index"], each["table"], each["problem"], each["recommendation"], each["sql"])
            for each in found["useless"]
        ),
    )
    print_table(
        ["read whole", "rows", "scans", "rows a scan", "index scans"],
        (tuple(each.values()) for each in found["read_whole"]),
    )
    for each in found.get("suggestions", []):
        console.print(
            f"{each['sql']};  -- cost {each['cost_before']:,.0f} → {each['cost_after']:,.0f}, "
            f"{each['size_bytes'] / _MIB:.1f} MiB, proven by {each['method']}",
            markup=False,
            soft_wrap=True,
        )


@db.command()
@click.option(
    "--by",
    type=click.Choice([order.value for order in SlowOrder]),
    default=SlowOrder.TOTAL.value,
    show_default=True,
)
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--trend", is_flag=True, help="How they changed between two kept snapshots.")
@click.option(
    "--hours",
    type=click.IntRange(1, 24 * 365),
    default=24,
    show_default=True,
    help="How far back the earlier of the two snapshots lies; with --trend.",
)
@json_option
def slow(by: str, limit: int, trend: bool, hours: int, as_json: bool) -> None:
    """The statements that cost most: by total time, by mean time, or by disk.

    With --trend: what each did since a snapshot of some hours ago, and how many times slower a call
    became; what took most time in between comes first.

    Example: samplemind db slow --by mean --limit 10

    Example: samplemind db slow --trend --hours 168
    """
    order = SlowOrder(by)
    if trend:
        if order is not SlowOrder.TOTAL:
            message = "--trend is ordered by the time between the snapshots: leave --by out"
            raise InvalidInputError(message)
        _show_trends(timedelta(hours=hours), limit, as_json=as_json)
        return

    async def work(settings: Settings) -> list[dict[str, Any]]:
        found = await QueryOptimizer(settings).get_slow_queries(order=order, limit=limit)
        return [asdict(each) for each in found]

    found = _run(work)
    if as_json:
        print_json({"statements": found})
        return
    print_table(
        ["share", "calls", "total s", "mean ms", "max ms", "read", "hit", "statement"],
        (
            (
                f"{each['share_percent']:.1f} %",
                each["calls"],
                f"{each['total_ms'] / 1000:.2f}",
                f"{each['mean_ms']:.2f}",
                f"{each['max_ms']:.2f}",
                each["blocks_read"],
                each["blocks_hit"],
                " ".join(str(each["query"]).split())[:120],
            )
            for each in found
        ),
    )


@db.command()
@json_option
def bloat(as_json: bool) -> None:
    """Air in tables and B-trees, dead rows, and how far wraparound is.

    Example: samplemind db bloat
    """

    async def work(settings: Settings) -> BloatReport:
        return await QueryOptimizer(settings).get_bloat_report()

    found = _run(work)
    if as_json:
        print_json({**asdict(found), "transactions_left": found.transactions_left})
        return
    print_table(
        ["what", "of", "MiB", "wasted MiB", "share", "found by"],
        (
            (
                each.name,
                each.table,
                f"{each.size_bytes / _MIB:.1f}",
                f"{each.wasted_bytes / _MIB:.1f}",
                f"{each.share:.0%}",
                each.method.value,
            )
            for each in (*found.tables, *found.indexes)
        ),
    )
    print_table(
        ["table", "dead rows", "live rows", "xid age"],
        (
            (each.table, each.dead_rows, each.live_rows, each.xid_age)
            for each in found.dead_rows[:10]
        ),
    )
    console.print(f"{found.transactions_left:,} transactions until wraparound")


@db.command(name="activity")
@json_option
def show_activity(as_json: bool) -> None:
    """Who is connected, who waits for whose lock, what is open for long, which upkeep runs.

    Example: samplemind db activity
    """
    found = _run(activity)
    if as_json:
        print_json(asdict(found))
        return
    states = ", ".join(f"{count} {state}" for state, count in found.connections.items())
    console.print(
        f"{found.connected} of {found.most_connections} connections ({states}); "
        f"{len(found.waiting)} wait for a lock, {len(found.long)} transactions are old",
        markup=False,
    )
    print_table(
        ["process", "application", "state", "transaction s", "waits s", "for", "held by"],
        (
            (
                each.pid,
                each.application,
                each.state,
                f"{each.transaction_s:.1f}",
                None if each.waiting_s is None else f"{each.waiting_s:.1f}",
                each.relation,
                ", ".join(map(str, each.blockers)) or None,
            )
            for each in found.sessions
        ),
    )
    for upkeep in found.upkeep:
        console.print(
            f"{upkeep.command} {upkeep.table}: {upkeep.phase}, {upkeep.done} of {upkeep.total} "
            "blocks",
            markup=False,
        )


@db.command()
@click.argument("tables", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Only show which tables need it, and why.")
@click.option("--reindex", is_flag=True, help="Build bloated indexes anew instead.")
@json_option
def vacuum(tables: tuple[str, ...], dry_run: bool, reindex: bool, as_json: bool) -> None:
    """VACUUM and ANALYZE where it is due, or the tables named.

    Example: samplemind db vacuum --dry-run
    """
    if tables and (reindex or dry_run):
        message = "--reindex and --dry-run go by what is due: name no tables"
        raise InvalidInputError(message)
    if dry_run:
        needs = _run(upkeep_needs)
        if as_json:
            print_json({"due": [asdict(each) for each in needs]})
        else:
            print_table(
                ["table", "command", "why"],
                ((each.table, each.command, each.reason) for each in needs),
            )
        return

    async def work(settings: Settings) -> UpkeepReport:
        if reindex:
            return await reindex_bloated(settings)
        return await (vacuum_tables(settings, tables) if tables else vacuum_due(settings))

    found = _run(work)
    if as_json:
        print_json(
            {
                "done": [asdict(each) for each in found.done],
                "skipped": [{"name": name, "why": why} for name, why in found.skipped],
                "left": found.left,
            }
        )
        return
    print_table(
        ["name", "command", "why", "seconds"],
        ((each.name, each.command, each.reason, f"{each.seconds:.2f}") for each in found.done),
    )
    for name, why in found.skipped:
        console.print(f"Skipped {name}: {why}", markup=False)
    if not found.done and not found.skipped:
        console.print("Nothing is due.")


def _show_trends(over: timedelta, limit: int, *, as_json: bool) -> None:
    async def work(connections: Connections) -> Trends:
        async with connections.postgres.session() as session:
            return await trends(session, over=over, limit=limit)

    found = with_connections(work)
    if as_json:
        statements = [asdict(each) | {"factor": each.factor} for each in found.statements]
        print_json({"from": found.first, "to": found.last, "statements": statements})
        return
    if found.first is None or found.last is None:
        console.print(
            "No trend yet: it takes two snapshots since the server began to count. "
            "One is kept every half an hour; `samplemind schedule run "
            "maintenance.snapshot_statements` keeps one now."
        )
        return
    print_table(
        ["slower", "calls", "mean ms", "before", "statement"],
        (
            (
                "" if each.factor is None else f"× {each.factor:.2f}",
                each.calls,
                f"{each.mean_ms:.2f}",
                "" if each.earlier_mean_ms is None else f"{each.earlier_mean_ms:.2f}",
                " ".join(each.query.split())[:120],
            )
            for each in found.statements
        ),
        title=f"{found.first:%Y-%m-%d %H:%M} to {found.last:%Y-%m-%d %H:%M} UTC",
    )


def _run(work: Callable[[Settings], Awaitable[_T]]) -> _T:
    async def call() -> _T:
        return await work(get_settings())

    return asyncio.run(call())


def _print_report(found: HealthReport) -> None:
    database = found.figures.database
    console.print(
        f"PostgreSQL {database['version']}, {database['name']}: "
        f"{database['size_bytes'] / _MIB:,.1f} MiB, looked at in {found.seconds:.1f} s",
        markup=False,
    )
    if not found.items:
        console.print("Nothing to do: no table, index or statement stands out.")
        return
    for number, item in enumerate(found.items, 1):
        console.print(
            f"{number}. {item.severity.value.upper()}  {item.subject}: {item.problem}", markup=False
        )
        evidence = ", ".join(f"{name}={value}" for name, value in item.evidence.items())
        console.print(f"   seen: {evidence}", markup=False, soft_wrap=True)
        console.print(f"   do:   {item.action}", markup=False, soft_wrap=True)
        console.print(f"   wins: {item.wins}", markup=False, soft_wrap=True)


def _print_findings(found: QueryReport) -> None:
    if not found.findings:
        console.print("Nothing stands out.")
    for each in found.findings:
        evidence = ", ".join(f"{name}={value}" for name, value in each.evidence.items())
        console.print(
            f"{each.problem.value} at {each.node} ({evidence})", markup=False, soft_wrap=True
        )
        console.print(f"   {each.recommendation}", markup=False, soft_wrap=True)
