"""`samplemind cache`: what the cache does, warming it, clearing parts of it."""

import dataclasses

import click

from samplemind.cache.searches import CachedSearch
from samplemind.cache.stats import find_hot_keys
from samplemind.cache.warming import TOP, warm
from samplemind.cli.output import console, json_option, print_json, print_table
from samplemind.cli.session import with_connections
from samplemind.connections.resources import Connections
from samplemind.errors import StoreUnavailableError


@click.group()
def cache() -> None:
    """Show what the cache does, warm it, clear parts of it."""


@cache.command()
@json_option
def stats(as_json: bool) -> None:
    """Show hits, latencies, memory, evictions, and keys by prefix.

    Example: samplemind cache stats
    """
    found = with_connections(lambda connections: connections.cached.cache.get_stats())
    if as_json:
        print_json(found.as_dict())
    else:
        facts = found.as_dict()
        by_prefix, counted = facts.pop("keys"), facts.pop("counted")
        print_table(("figure", "value"), facts.items())
        print_table(("prefix", "keys"), sorted(by_prefix.items()))
        print_table(("counted", "times"), sorted(counted.items()))
    if not found.available:
        message = "the cache's Redis does not answer; everything works without it, more slowly"
        raise StoreUnavailableError(message)


@cache.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@json_option
def hot(limit: int, as_json: bool) -> None:
    """Show what is searched for most, and the keys that are asked for most of a sample.

    Example: samplemind cache hot --limit 10
    """

    async def work(connections: Connections) -> dict[str, list[dict[str, object]]]:
        redis_cache = connections.cached.cache
        await redis_cache.require()
        searches = await CachedSearch(connections).popular(limit)
        keys = await find_hot_keys(redis_cache, limit=limit)
        return {
            "searches": [dataclasses.asdict(each) for each in searches],
            "keys": [dataclasses.asdict(each) for each in keys],
        }

    found = with_connections(work)
    if as_json:
        print_json(found)
        return
    print_table(
        ("searched for", "times, halved every 6 h"),
        ((each["query"], each["count"]) for each in found["searches"]),
    )
    print_table(
        ("key", "frequency", "bytes", "seconds left"),
        (tuple(each.values()) for each in found["keys"]),
    )


@cache.command("warm")
@click.option(
    "--top", type=click.IntRange(1), default=TOP, show_default=True, help="Searches, and files."
)
@click.option("--seconds", type=click.FloatRange(min=0.1), help="Time it may take at most.")
@json_option
def warm_command(top: int, seconds: float | None, as_json: bool) -> None:
    """Make the most popular searches anew that expire soon, or are not cached.

    Example: samplemind cache warm --top 500 --seconds 30
    """

    async def work(connections: Connections) -> dict[str, object]:
        within_s = connections.settings.cache.warm_s if seconds is None else seconds
        return dataclasses.asdict(await warm(connections, within_s=within_s, top=top))

    _print(with_connections(work), as_json)


@cache.command()
@click.argument("pattern")
@click.option("--dry-run", is_flag=True, help="Only count what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def clear(pattern: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete the cached values whose key matches; nothing is lost, it is computed again.

    Keys begin with what is cached (`cache stats` lists it). Rate limits and what is known of
    popularity stay.

    Example: samplemind cache clear 'search:*' --dry-run
    """

    async def count(connections: Connections) -> int:
        redis_cache = connections.cached.cache
        await redis_cache.require()
        return await redis_cache.count_pattern(pattern)

    async def delete(connections: Connections) -> int:
        redis_cache = connections.cached.cache
        await redis_cache.require()
        return await redis_cache.delete_pattern(pattern)

    if dry_run or not (yes or as_json):
        matching = with_connections(count)
        if dry_run:
            _print({"pattern": pattern, "matching": matching, "deleted": 0}, as_json)
            return
        click.confirm(f"Delete {matching} cached values?", abort=True, err=True)
    _print({"pattern": pattern, "deleted": with_connections(delete)}, as_json)


def _print(found: dict[str, object], as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        console.print("  ".join(f"{name} [bold]{value}[/bold]" for name, value in found.items()))
