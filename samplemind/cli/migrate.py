"""`samplemind migrate`: bring PostgreSQL's tables and MongoDB's indexes up to date."""

import asyncio

import click

from samplemind.cli.output import console, json_option, print_json
from samplemind.connections.resources import Connections
from samplemind.documents.indexes import ensure_indexes
from samplemind.migrate import migrate_postgres
from samplemind.settings import Settings, get_settings


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


@click.command()
@json_option
def migrate(as_json: bool) -> None:
    """Bring PostgreSQL's tables and MongoDB's indexes up to date; `up` does it by itself.

    Example: samplemind migrate
    """
    revision, indexes = run_migrations(get_settings())
    if as_json:
        print_json({"revision": revision, "indexes_made": indexes})
        return
    console.print(f"PostgreSQL is at revision {revision}.")
    console.print(f"MongoDB: {len(indexes)} indexes made." if indexes else "MongoDB: all indexes.")
