"""`samplemind migrate`: bring PostgreSQL's tables and MongoDB's indexes up to date."""

import asyncio
import time

import click

from samplemind.cli.output import console, error_console, json_option, print_json
from samplemind.connections.resources import Connections
from samplemind.documents.indexes import ensure_indexes, missing_indexes
from samplemind.errors import TransientError
from samplemind.migrate import lacks_revisions, migrate_postgres
from samplemind.settings import Settings, get_settings

_POLL_S = 2.0


def run_migrations(settings: Settings) -> tuple[str, list[str]]:
    """Bring the stores up to date; return PostgreSQL's revision and the indexes that were made.

    `settings` must name the URL of every store. Doing it again, or in two processes at once, is
    harmless.

    Raises:
        SampleMindError: a store did not answer or refused a step.
    """

    async def migrate() -> tuple[str, list[str]]:
        revision = await migrate_postgres(settings)
        async with Connections(settings) as connections:
            return revision, await ensure_indexes(await connections.documents())

    return asyncio.run(migrate())


def lacking(settings: Settings) -> tuple[list[str], list[str]]:
    """Return PostgreSQL's revisions and MongoDB's indexes that are still to be made; make none.

    Raises:
        StoreUnavailableError: a store did not answer.
    """

    async def look() -> tuple[list[str], list[str]]:
        revisions = await lacks_revisions(settings)
        async with Connections(settings) as connections:
            return revisions, await missing_indexes(await connections.documents())

    return asyncio.run(look())


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit 1 if something is to be made.")
@click.option(
    "--wait",
    "wait_s",
    type=click.IntRange(min=0),
    metavar="SECONDS",
    help="As --check, but wait so long for another `migrate` to have made it.",
)
@json_option
@click.pass_context
def migrate(context: click.Context, check: bool, wait_s: int | None, as_json: bool) -> None:
    """Bring PostgreSQL's tables and MongoDB's indexes up to date; `up` does it by itself.

    With --wait, processes that start beside the one that migrates wait for it: a store that does
    not answer yet is waited for, too.

    Example: samplemind migrate --wait 300
    """
    settings = get_settings()
    if check or wait_s is not None:
        revisions, indexes = _await_made(settings, wait_s or 0)
        _print_lacking(revisions, indexes, as_json=as_json)
        context.exit(1 if revisions or indexes else 0)
    revision, made = run_migrations(settings)
    if as_json:
        print_json({"revision": revision, "indexes_made": made})
        return
    console.print(f"PostgreSQL is at revision {revision}.")
    console.print(f"MongoDB: {len(made)} indexes made." if made else "MongoDB: all indexes.")


def _await_made(settings: Settings, wait_s: int) -> tuple[list[str], list[str]]:
    """Return what is lacking as soon as that is nothing, or when the time is over.

    Raises:
        TransientError: when the time was over, a store did not answer.
    """
    deadline = time.monotonic() + wait_s
    while True:
        over = time.monotonic() >= deadline
        try:
            found = lacking(settings)
        except TransientError as error:
            if over:
                raise
            error_console.print(f"Waiting: {error}", markup=False, soft_wrap=True)
        else:
            if over or not any(found):
                return found
            error_console.print("Waiting for `samplemind migrate` …")
        time.sleep(min(_POLL_S, max(0.0, deadline - time.monotonic())))


def _print_lacking(revisions: list[str], indexes: list[str], *, as_json: bool) -> None:
    if as_json:
        print_json({"revisions_lacking": revisions, "indexes_lacking": indexes})
        return
    if not revisions and not indexes:
        console.print("The stores have all that this installation needs.")
        return
    console.print(
        f"Lacking: {', '.join([*(f'revision {name}' for name in revisions), *indexes])} → "
        "run `samplemind migrate`",
        markup=False,
        soft_wrap=True,
    )
