"""`samplemind search`: finding files by words, and what all queries share."""

import dataclasses
from typing import Any

import click

from samplemind.cli.output import console, json_option, print_json, print_table
from samplemind.cli.session import with_connections
from samplemind.connections.resources import Connections
from samplemind.errors import NotFoundError
from samplemind.repositories.users import UserRepository
from samplemind.search.filter_text import parse_kind, parse_range
from samplemind.search.filters import Filters
from samplemind.search.full_text import Hit, Results, search_audio_files
from samplemind.search.keys import parse_key

_WIDTH_WITH_IDS = 110


def filter_options(command: Any) -> Any:
    """Add the options that narrow any query."""
    for option in (
        click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True),
        click.option("--owner", metavar="EMAIL", help="Only this user's files."),
        click.option("--bpm", metavar="LOW..HIGH", help="Tempo, such as 120..130, 120.. or 128."),
        click.option("--key", "key_name", metavar="KEY", help='Key, such as "F# minor" or Dmaj.'),
        click.option("--kind", metavar="KIND", help="loop or one_shot."),
        click.option("--duration", metavar="LOW..HIGH", help="Length in seconds."),
        click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag; may be repeated."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("text", nargs=-1, required=True)
@filter_options
@json_option
def search(text: tuple[str, ...], as_json: bool, limit: int, **narrow: Any) -> None:
    """Find files by words: "phrases", `or`, and a minus before what must not be there.

    Example: samplemind search dark kick --kind one_shot
    """
    query = " ".join(text)

    async def work(connections: Connections) -> Results:
        filters = await filters_of(connections, **narrow)
        async with connections.postgres.session() as session:
            return await search_audio_files(session, query, filters=filters, limit=limit)

    _show(with_connections(work), as_json)


async def filters_of(
    connections: Connections,
    *,
    owner: str | None,
    bpm: str | None,
    key_name: str | None,
    kind: str | None,
    duration: str | None,
    tags: tuple[str, ...],
) -> Filters:
    """Return what the options of `filter_options` ask for, as an operator, who sees everything.

    Raises:
        NotFoundError: there is no such user.
        InvalidInputError: an option cannot be read.
    """
    owner_id = None
    if owner is not None:
        async with connections.postgres.session() as session:
            user = await UserRepository(session).get_by_email(owner)
        if user is None:
            message = f"there is no user {owner}"
            raise NotFoundError(message)
        owner_id = user.id
    return Filters(
        everything=True,
        owner_id=owner_id,
        tempo_bpm=parse_range(bpm) if bpm else None,
        duration_s=parse_range(duration) if duration else None,
        key=parse_key(key_name) if key_name else None,
        kind=parse_kind(kind) if kind else None,
        tags=tags,
    )


def _show(results: Results, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(results))
        return
    print_results(results)


def print_results(results: Results) -> None:
    """Print hits as a table, and under it how many there are and how long it took.

    A narrow terminal has no room for ids; `--json` and a wider one show them.
    """
    columns = ["score", "title", "kind", "bpm", "key", "seconds"]
    with_ids = console.width >= _WIDTH_WITH_IDS
    print_table(
        [*columns, "id"] if with_ids else columns,
        ((*_cells(hit), hit.id) if with_ids else _cells(hit) for hit in results.results),
    )
    shown = len(results.results)
    console.print(f"[dim]{shown} of {results.total} in {results.took_ms:.1f} ms[/dim]")


def _cells(hit: Hit) -> tuple[object, ...]:
    return (
        f"{hit.score:.3f}",
        hit.title,
        hit.kind,
        f"{hit.tempo_bpm:.1f}" if hit.tempo_bpm else None,
        hit.key,
        f"{hit.duration_s:.2f}" if hit.duration_s is not None else None,
    )
