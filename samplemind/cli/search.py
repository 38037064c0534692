"""`samplemind search`, `fuzzy` and `suggest`, and what all queries share."""

import dataclasses
import html
import time
from itertools import chain, repeat
from typing import Any
from uuid import UUID

import click
from rich.markup import escape

from samplemind.cache.searches import CachedSearch
from samplemind.cli.output import console, json_option, print_json, print_table
from samplemind.cli.session import with_connections
from samplemind.connections.resources import Connections
from samplemind.errors import NotFoundError
from samplemind.repositories.users import UserRepository
from samplemind.search.facets import Facets
from samplemind.search.filter_text import parse_kind, parse_period, parse_range
from samplemind.search.filters import Filters, KeyMatch
from samplemind.search.keys import parse_key
from samplemind.search.results import Hit, Results, milliseconds_since
from samplemind.search.suggest import MAX_SUGGESTIONS, Suggestion

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
        click.option("--format", "formats", multiple=True, metavar="FORMAT", help="Such as wav."),
        click.option("--loudness", metavar="LOW..HIGH", help="LUFS, such as -16..-10."),
        click.option("--created", metavar="FROM..TO", help="Days, such as 2026-01-01..2026-03-31."),
        click.option("--half-or-double", is_flag=True, help="Half and double the tempo pass too."),
        click.option(
            "--key-match",
            type=click.Choice([each.value for each in KeyMatch]),
            default=KeyMatch.EXACT.value,
            show_default=True,
            help="Whether relative, or all compatible keys pass too.",
        ),
    ):
        command = option(command)
    return command


# A minus before a word is part of the query: -h must not mean help, nor -s an unknown option.
@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("text", nargs=-1, required=True)
@click.option("--explain", is_flag=True, help="Show what each score is made of.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Leave out so many.")
@click.option("--cursor", metavar="CURSOR", help="Go on after a page: its next_cursor.")
@click.option("--facets", is_flag=True, help="Count kinds, keys, tags, formats and tempos too.")
@filter_options
@json_option
def search(
    text: tuple[str, ...],
    explain: bool,
    offset: int,
    cursor: str | None,
    facets: bool,
    as_json: bool,
    limit: int,
    **narrow: Any,
) -> None:
    """Find files by words: "phrases", `or`, and a minus before what must not be there.

    Example: samplemind search dark kick -snare --kind one_shot
    """
    query = " ".join(text)

    async def work(connections: Connections) -> tuple[Results, Facets | None]:
        filters = await filters_of(connections, **narrow)
        async with CachedSearch(connections) as searches:
            found = await searches.search_audio_files(
                query, filters=filters, limit=limit, offset=offset, cursor=cursor, explain=explain
            )
            counted = await searches.facets(query, filters=filters) if facets else None
        return found, counted

    found, counted = with_connections(work)
    if as_json:
        extra = {"facets": dataclasses.asdict(counted)} if counted is not None else {}
        print_json(dataclasses.asdict(found) | extra)
        return
    print_results(found)
    if counted is not None:
        _print_facets(counted)


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("text", nargs=-1, required=True)
@click.option("--explain", is_flag=True, help="Show what each score is made of.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Leave out so many.")
@filter_options
@json_option
def fuzzy(
    text: tuple[str, ...], explain: bool, offset: int, as_json: bool, limit: int, **narrow: Any
) -> None:
    """Find files by words that may be misspelt.

    Example: samplemind fuzzy drak kcik
    """
    query = " ".join(text)

    async def work(connections: Connections) -> Results:
        filters = await filters_of(connections, **narrow)
        async with CachedSearch(connections) as searches:
            return await searches.fuzzy_search(
                query, filters=filters, limit=limit, offset=offset, explain=explain
            )

    _show(with_connections(work), as_json)


@click.command()
@click.argument("prefix", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(1, MAX_SUGGESTIONS), default=10, show_default=True)
@click.option("--owner", metavar="EMAIL", help="Only from this user's files.")
@json_option
def suggest(prefix: tuple[str, ...], limit: int, owner: str | None, as_json: bool) -> None:
    """Complete what is being typed: words, and whole names.

    Example: samplemind suggest dark ki
    """
    typed = " ".join(prefix)

    async def work(connections: Connections) -> tuple[Suggestion, ...]:
        filters = Filters(everything=True, owner_id=await _owner_id(connections, owner))
        async with CachedSearch(connections) as searches:
            return await searches.autocomplete(typed, filters=filters, limit=limit)

    started = time.perf_counter()
    found = with_connections(work)
    if as_json:
        results = [_as_result(suggestion) for suggestion in found]
        took_ms = milliseconds_since(started)
        print_json({"took_ms": took_ms, "total": len(results), "results": results})
        return
    print_table(
        ("suggestion", "kind", "files"),
        ((suggestion.text, suggestion.kind, suggestion.documents) for suggestion in found),
    )


def _as_result(suggestion: Suggestion) -> dict[str, Any]:
    # A completion is no file, but whoever reads results of queries finds the same fields.
    same = {"id": None, "path": None, "title": suggestion.text}
    shown = {"highlight": html.escape(suggestion.text), "score": suggestion.documents}
    return dataclasses.asdict(suggestion) | same | shown


async def filters_of(
    connections: Connections,
    *,
    owner: str | None,
    bpm: str | None,
    key_name: str | None,
    kind: str | None,
    duration: str | None,
    tags: tuple[str, ...],
    formats: tuple[str, ...],
    loudness: str | None,
    created: str | None,
    half_or_double: bool,
    key_match: str,
) -> Filters:
    """Return what the options of `filter_options` ask for, as an operator, who sees everything.

    Raises:
        NotFoundError: there is no such user.
        InvalidInputError: an option cannot be read.
    """
    return Filters(
        everything=True,
        owner_id=await _owner_id(connections, owner),
        tempo_bpm=parse_range(bpm) if bpm else None,
        duration_s=parse_range(duration) if duration else None,
        key=parse_key(key_name) if key_name else None,
        kind=parse_kind(kind) if kind else None,
        tags=tags,
        formats=tuple(name.strip().lower() for name in formats),
        loudness_lufs=parse_range(loudness) if loudness else None,
        created=parse_period(created) if created else None,
        half_or_double=half_or_double,
        key_match=KeyMatch(key_match),
    )


async def _owner_id(connections: Connections, email: str | None) -> UUID | None:
    if email is None:
        return None
    async with connections.postgres.session() as session:
        user = await UserRepository(session).get_by_email(email)
    if user is None:
        message = f"there is no user {email}"
        raise NotFoundError(message)
    return user.id


def _show(results: Results, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(results))
        return
    print_results(results)


def print_results(results: Results) -> None:
    """Print hits as a table, and under it how many there are and how long it took.

    A narrow terminal has no room for ids; `--json` and a wider one show them.
    """
    if not results.results:
        console.print("Nothing was found.")
    else:
        _print_hits(results)
    if results.did_you_mean is not None:
        if results.searched is not None:
            console.print(f"Shown for: {escape(results.searched)}", style="bold")
        if results.searched != results.did_you_mean:
            console.print(f"Did you mean: {escape(results.did_you_mean)}", style="bold")
    total = f"{results.total}" if results.total_is_exact else f"more than {results.total}"
    console.print(f"[dim]{len(results.results)} of {total} in {results.took_ms:.1f} ms[/dim]")


def _print_hits(results: Results) -> None:
    columns = ["score", "title", "kind", "bpm", "key", "seconds"]
    explained = any(hit.explanation for hit in results.results)
    with_ids = console.width >= _WIDTH_WITH_IDS
    columns += ["because"] * explained + ["id"] * with_ids
    print_table(
        columns,
        (
            (*_cells(hit), *[_because(hit)] * explained, *[hit.id] * with_ids)
            for hit in results.results
        ),
    )


def _because(hit: Hit) -> str:
    # Places and counts are whole numbers, and read better so.
    return "  ".join(
        f"{name.replace('_', ' ')} {value if isinstance(value, int) else f'{value:.3f}'}"
        for name, value in (hit.explanation or {}).items()
    )


def _print_facets(facets: Facets) -> None:
    print_table(
        ("facet", "value", "files"),
        (
            (name if first else None, value, count)
            for name, counts in facets.counts.items()
            for first, (value, count) in zip(
                chain([True], repeat(False)), counts.items(), strict=False
            )
        ),
    )
    of = "all" if facets.is_exact else "the best"
    console.print(f"[dim]counted {of} {facets.counted} in {facets.took_ms:.1f} ms[/dim]")


def _cells(hit: Hit) -> tuple[object, ...]:
    return (
        f"{hit.score:.3f}",
        hit.title,
        hit.kind,
        f"{hit.tempo_bpm:.1f}" if hit.tempo_bpm else None,
        hit.key,
        f"{hit.duration_s:.2f}" if hit.duration_s is not None else None,
    )
