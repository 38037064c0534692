"""`samplemind similar` and `samplemind hybrid`: finding files by sound, and by words and sound."""

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import numpy as np

from samplemind.audio.analysis import ANALYZER_VERSION, analyze_file
from samplemind.audio.embedding import join_blocks
from samplemind.cache.features import AudioFeatureCache
from samplemind.cache.searches import CachedSearch
from samplemind.cli.output import json_option, print_json
from samplemind.cli.search import filter_options, filters_of, print_results
from samplemind.cli.session import with_connections
from samplemind.connections.resources import Connections
from samplemind.documents.text import canonical_path, store_path
from samplemind.errors import InvalidInputError, NotFoundError
from samplemind.search.aspects import ASPECTS
from samplemind.search.filters import Filters
from samplemind.search.fusion import Fusion
from samplemind.search.nearest import Metric
from samplemind.search.results import Results
from samplemind.search.sound import Sound, combine, find_by_path, stored_sounds
from samplemind.search.vector import DUPLICATE_SIMILARITY, is_duplicate


@click.command()
@click.argument("files_or_ids", nargs=-1, required=True)
@click.option(
    "--unlike", multiple=True, metavar="FILE_OR_ID", help="What not to sound like; repeatable."
)
@click.option(
    "--weight",
    "weights",
    multiple=True,
    metavar="ASPECT=NUMBER",
    help=f"How much an aspect counts: {', '.join(ASPECTS)}; repeatable.",
)
@click.option(
    "--metric",
    type=click.Choice([each.value for each in Metric]),
    default=Metric.COSINE.value,
    show_default=True,
)
@click.option("--duplicates", is_flag=True, help=f"Only what is {DUPLICATE_SIMILARITY:.0%} alike.")
@click.option("--explain", is_flag=True, help="Show what each score is made of.")
@filter_options
@json_option
def similar(
    files_or_ids: tuple[str, ...],
    unlike: tuple[str, ...],
    weights: tuple[str, ...],
    metric: str,
    duplicates: bool,
    explain: bool,
    as_json: bool,
    limit: int,
    **narrow: Any,
) -> None:
    """Find files that sound like one or several: of the library (path or id), or any audio file.

    Example: samplemind similar kick.wav --unlike snare.wav --weight timbre=2 --weight envelope=1
    """
    aspects = _weights(weights)
    if duplicates and (aspects is not None or Metric(metric) is not Metric.COSINE):
        message = "--duplicates are told by the cosine alone: leave out --weight and --metric"
        raise click.UsageError(message)

    async def work(connections: Connections) -> Results:
        filters = await filters_of(connections, **narrow)
        likes = await _find(connections, files_or_ids)
        dislikes = await _find(connections, unlike)
        options: dict[str, Any] = {
            "metric": Metric(metric),
            "filters": filters,
            "aspects": aspects,
            "limit": limit,
            "explain": explain,
        }
        async with CachedSearch(connections) as searches:
            if None not in (*likes.values(), *dislikes.values()):
                ids, others = _ids(likes), _ids(dislikes)
                found = await searches.similar_files(ids, unlike=others, **options)
            else:
                liked = await _sounds(connections, likes, filters)
                disliked = await _sounds(connections, dislikes, filters)
                alone = len(liked) == 1 and not disliked
                sound = liked[0] if alone else combine(liked, disliked)
                found = await searches.similarity_search(sound, **options)
        return _only_duplicates(found) if duplicates else found

    _show(with_connections(work), as_json)


@click.command()
@click.argument("text", nargs=-1, required=True)
@click.option("--like", required=True, metavar="FILE_OR_ID", help="What results should sound like.")
@click.option(
    "--fusion",
    type=click.Choice([each.value for each in Fusion]),
    default=Fusion.RECIPROCAL_RANK.value,
    show_default=True,
    help="By places (rrf), or by scores and the two weights (weighted).",
)
@click.option("--text-weight", type=click.FloatRange(min=0), default=0.5, show_default=True)
@click.option("--sound-weight", type=click.FloatRange(min=0), default=0.5, show_default=True)
@click.option("--explain", is_flag=True, help="Show what each score is made of.")
@filter_options
@json_option
def hybrid(
    text: tuple[str, ...],
    like: str,
    fusion: str,
    text_weight: float,
    sound_weight: float,
    explain: bool,
    as_json: bool,
    limit: int,
    **narrow: Any,
) -> None:
    """Find files by words and by sound at once.

    Example: samplemind hybrid dark kick --like kick.wav --fusion weighted --text-weight 0.7
    """

    async def work(connections: Connections) -> Results:
        filters = await filters_of(connections, **narrow)
        query, found = " ".join(text), await _find(connections, [like])
        options: dict[str, Any] = {
            "fusion": Fusion(fusion),
            "text_weight": text_weight,
            "sound_weight": sound_weight,
            "filters": filters,
            "limit": limit,
            "explain": explain,
        }
        async with CachedSearch(connections) as searches:
            if None not in found.values():
                return await searches.hybrid_files(query, _ids(found), **options)
            [sound] = await _sounds(connections, found, filters)
            return await searches.hybrid_search(query, sound, **options)

    _show(with_connections(work), as_json)


def _only_duplicates(found: Results) -> Results:
    alike = tuple(hit for hit in found.results if is_duplicate(hit.score))
    whole = len(alike) < len(found.results) or found.total_is_exact
    return dataclasses.replace(found, total=len(alike), total_is_exact=whole, results=alike)


def _weights(texts: Sequence[str]) -> dict[str, float] | None:
    weights = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            weights[name.strip()] = float(number)
        except ValueError:
            message = f"{text!r} is no weight: write for example timbre=2"
            raise InvalidInputError(message) from None
    return weights or None


async def _find(connections: Connections, files_or_ids: Sequence[str]) -> dict[str, UUID | None]:
    """Return the ids of those that the index has, by how they were named; none: another file."""
    found = {name: _as_id(name) for name in files_or_ids}
    if None in found.values():
        async with connections.postgres.session() as session:
            for name, file_id in found.items():
                found[name] = file_id or await find_by_path(session, _stored(name))
    return found


def _ids(found: Mapping[str, UUID | None]) -> list[UUID]:
    return [file_id for file_id in found.values() if file_id is not None]


async def _sounds(
    connections: Connections, found: Mapping[str, UUID | None], filters: Filters
) -> list[Sound]:
    async with connections.postgres.session() as session:
        stored = await stored_sounds(session, _ids(found), filters=filters, with_blocks=True)
    return [
        stored.pop(0) if file_id is not None else await _measured(connections, Path(name))
        for name, file_id in found.items()
    ]


def _stored(name: str) -> str:
    return store_path(canonical_path(Path(name)))


def _as_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


async def _measured(connections: Connections, path: Path) -> Sound:
    audio, loop = connections.settings.audio, asyncio.get_running_loop()
    # In a thread, because it asks the cache on this loop whether it knows the content.
    analysis = await asyncio.to_thread(
        analyze_file,
        path,
        root=audio.root,
        limits=audio.limits(),
        memory=AudioFeatureCache(connections.cached).memory(
            ANALYZER_VERSION,
            audio.limits(),
            lambda asking: asyncio.run_coroutine_threadsafe(asking, loop).result(),
        ),
    )
    if analysis.outcome.rejected:
        message = f"{path}: {analysis.message}"
        raise InvalidInputError(message)
    if analysis.measurements is None:
        message = f"{path}: {analysis.message} It sounds like nothing else."
        raise NotFoundError(message)
    found = analysis.measurements
    return Sound(
        np.asarray(found.embedding, np.float32),
        found.embedding_version,
        blocks=join_blocks(found.blocks),
    )


def _show(results: Results, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(results))
        return
    print_results(results)
