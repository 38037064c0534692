"""`samplemind index`: how far the search index is behind, and its repair."""

import dataclasses

import click
from sqlalchemy import func, select

from samplemind.cli.output import console, json_option, print_json
from samplemind.cli.session import with_connections
from samplemind.connections.resources import Connections
from samplemind.models.search_document import SearchDocument
from samplemind.search.dirty import index_lag
from samplemind.search.indexer import drain
from samplemind.search.reconcile import Drift, reconcile


@click.group()
def index() -> None:
    """Show how far the search index is behind, or repair it."""


@index.command()
@json_option
def status(as_json: bool) -> None:
    """Show the rows, what waits, and what differs from the library (nothing is changed).

    Example: samplemind index status --json
    """

    async def work(connections: Connections) -> dict[str, object]:
        async with connections.postgres.session() as session:
            rows = await session.scalar(select(func.count()).select_from(SearchDocument))
        lag = await index_lag(connections.broker)
        drift = await reconcile(connections, repair=False)
        return {
            "rows": rows,
            **dataclasses.asdict(lag),
            **_drift(drift),
        }

    found = with_connections(work)
    if as_json:
        print_json(found)
    else:
        console.print("  ".join(f"{name} [bold]{value}[/bold]" for name, value in found.items()))


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
        return {**_drift(drift), "written": report.written, "removed": report.removed}

    found = with_connections(work)
    if as_json:
        print_json(found)
    else:
        console.print("  ".join(f"{name} [bold]{value}[/bold]" for name, value in found.items()))


def _drift(drift: Drift) -> dict[str, object]:
    return dataclasses.asdict(drift)
