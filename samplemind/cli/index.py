"""`samplemind index`: how far the search index is behind, how it is, and its upkeep."""

import dataclasses
from typing import Any

import click

from samplemind.cli.output import console, json_option, print_json, print_table
from samplemind.cli.progress import progress_bar
from samplemind.cli.session import with_connections
from samplemind.connections.resources import Connections
from samplemind.search.configuration import outdated_words
from samplemind.search.fold import fold_vectors
from samplemind.search.indexer import drain
from samplemind.search.optimizer import SearchOptimizer, SearchStats
from samplemind.search.rebuild import RebuildPhase, rebuild_index
from samplemind.search.recall import (
    MOST_QUERIES,
    QUERIES,
    WITHIN_S,
    calibrate,
    choose_ef_search,
)
from samplemind.search.reconcile import reconcile


@click.group()
def index() -> None:
    """Show how far the search index is behind and how it is, repair it, rebuild it."""


@index.command()
@json_option
def status(as_json: bool) -> None:
    """Show the rows, what waits, and what differs from the library (nothing is changed).

    Example: samplemind index status --json
    """

    async def work(connections: Connections) -> dict[str, object]:
        stats = await SearchOptimizer(connections).get_search_stats()
        drift = await reconcile(connections, repair=False)
        freshness = dataclasses.asdict(stats.freshness)
        return {
            "rows": freshness.pop("files"),
            **dataclasses.asdict(stats.lag),
            **dataclasses.asdict(drift),
            **freshness,
            "warning": outdated_words(
                stats.freshness.text_configuration, connections.settings.search.text_configuration
            ),
        }

    _print(with_connections(work), as_json)


@index.command()
@json_option
def stats(as_json: bool) -> None:
    """Show sizes, dead rows, pending lists, measured recall and the slowest queries.

    Example: samplemind index stats
    """
    found = with_connections(lambda connections: SearchOptimizer(connections).get_search_stats())
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        _print_stats(found)


@index.command("reconcile")
@click.option("--force", is_flag=True, help="Remove rows without a file, however many they are.")
@json_option
def reconcile_command(force: bool, as_json: bool) -> None:
    """Compare the whole library with the index and write what differs, here and now.

    `samplemind index status` shows before what would be done.

    Example: samplemind index reconcile
    """

    async def work(connections: Connections) -> dict[str, object]:
        drift = await reconcile(connections, force=force)
        report = await drain(connections)
        return {
            **dataclasses.asdict(drift),
            "written": report.written,
            "removed": report.removed,
        }

    _print(with_connections(work), as_json)


@index.command()
@json_option
def rebuild(as_json: bool) -> None:
    """Make the whole index anew while the present one serves, here and now.

    Example: samplemind index rebuild
    """
    with progress_bar() as bar:
        task = bar.add_task("begin", total=None)

        def progress(phase: RebuildPhase, files: int) -> None:
            bar.update(task, description=phase.value, completed=files)

        async def work(connections: Connections) -> dict[str, object]:
            report = await rebuild_index(connections, progress=progress)
            bar.update(task, description="vocabulary")
            vocabulary = await SearchOptimizer(connections).update_statistics()
            return {**dataclasses.asdict(report), **dataclasses.asdict(vocabulary)}

        found = with_connections(work)
    _print(found, as_json)


@index.command()
@json_option
def fold(as_json: bool) -> None:
    """Move every fresh vector into the approximate index, here and now.

    Example: samplemind index fold
    """
    with progress_bar() as bar:
        task = bar.add_task("vectors", total=None)

        async def work(connections: Connections) -> dict[str, object]:
            report = await fold_vectors(
                connections, progress=lambda done: bar.update(task, completed=done)
            )
            return dataclasses.asdict(report)

        found = with_connections(work)
    _print(found, as_json)


@index.command()
@json_option
def vocabulary(as_json: bool) -> None:
    """Count the words that corrections, suggestions and plans go by.

    Example: samplemind index vocabulary
    """
    with progress_bar() as bar:
        task = bar.add_task("words", total=None)

        async def work(connections: Connections) -> dict[str, object]:
            counted = await SearchOptimizer(connections).update_statistics(
                lambda done, total: bar.update(task, completed=done, total=total)
            )
            return dataclasses.asdict(counted)

        found = with_connections(work)
    _print(found, as_json)


@index.command()
@json_option
def optimize(as_json: bool) -> None:
    """Free dead rows, clear what a dead rebuild has left, and measure the recall of vectors.

    Searches by sound choose by that recall how far they look.

    Example: samplemind index optimize
    """
    with progress_bar() as bar:
        task = bar.add_task("vacuum", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, description="recall", completed=done, total=total)

        async def work(connections: Connections) -> dict[str, object]:
            report = await SearchOptimizer(connections).optimize(progress)
            return {
                "discarded_rebuild": report.discarded_rebuild,
                "vacuumed": [each.name for each in report.upkeep.done],
                "skipped": dict(report.upkeep.skipped),
                "ef_search": report.ef_search,
            }

        found = with_connections(work)
    _print(found, as_json)


@index.command()
@click.option(
    "--queries",
    type=click.IntRange(1, MOST_QUERIES),
    default=QUERIES,
    show_default=True,
    help="Sounds to ask for, at most.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0),
    default=WITHIN_S,
    show_default=True,
    help="Time for asking; where it ends, fewer sounds stand behind the figures.",
)
@json_option
def recall(queries: int, seconds: float, as_json: bool) -> None:
    """Measure how much of the true nearest searches by sound find, and choose `ef_search` by it.

    `samplemind index stats` shows what was measured last; every night measures it anew. Ended by
    Ctrl-C, it leaves the figures that were there.

    Example: samplemind index recall --queries 100
    """
    with progress_bar() as bar:
        task = bar.add_task("recall", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        async def work(connections: Connections) -> dict[str, Any]:
            target = connections.settings.search.recall_target
            async with connections.postgres.session() as session:
                measured = await calibrate(
                    session, queries=queries, within_s=seconds, progress=progress
                )
            return {
                "target": target,
                "ef_search": choose_ef_search(measured, target),
                "recall": [dataclasses.asdict(each) for each in measured],
            }

        found = with_connections(work)
    if as_json:
        print_json(found)
        return
    print_table(
        ["ef_search", "recall@10", "surely", "ms", "samples"],
        (
            (
                each["ef_search"],
                f"{each['recall']:.3f}",
                f"{each['surely']:.3f}",
                f"{each['milliseconds']:.2f}",
                each["queries"],
            )
            for each in found["recall"]
        ),
    )
    console.print(f"searches use ef_search [bold]{found['ef_search']}[/bold] for {found['target']}")


def _print(found: dict[str, object], as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        warning = found.pop("warning", None)
        console.print("  ".join(f"{name} [bold]{value}[/bold]" for name, value in found.items()))
        if warning is not None:
            console.print(f"Warning: {warning}", style="yellow", markup=False)


def _print_stats(found: SearchStats) -> None:
    print_table(
        ["table", "rows", "dead", "MiB", "indexes MiB", "from memory", "vacuumed"],
        (
            (
                table.name,
                table.rows,
                table.dead_rows,
                f"{table.table_bytes / 2**20:.1f}",
                f"{table.index_bytes / 2**20:.1f}",
                f"{table.cache_hits:.1%}" if table.cache_hits is not None else None,
                f"{table.vacuumed_at:%Y-%m-%d %H:%M}" if table.vacuumed_at else None,
            )
            for table in found.tables
        ),
    )
    print_table(
        ["GIN index", "pending pages", "entries"],
        ((pending.index, pending.pages, pending.entries) for pending in found.pending),
    )
    print_table(
        ["ef_search", "recall@10", "ms", "samples", "measured"],
        (
            (
                each.ef_search,
                f"{each.recall:.3f}",
                f"{each.milliseconds:.2f}",
                each.queries,
                f"{each.measured_at:%Y-%m-%d %H:%M}",
            )
            for each in found.recall
        ),
    )
    print_table(
        ["slowest searches", "calls", "mean ms", "max ms"],
        ((slow.query, slow.calls, slow.mean_ms, slow.max_ms) for slow in found.slowest),
    )
