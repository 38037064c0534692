"""Searches with the cache before them: what services and the command line call.

Staleness allowed: none by a write to the index or to collections, which make the results that they
could change invalid before they are told done. What changes results otherwise (usage counts,
statistics of words) shows within `TTL`, as does an account's deletion.

Invariant: who looks is part of the key and of the tags: no viewer ever gets what another may see.
"""

import dataclasses
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Self
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.cache.cached import Policy
from samplemind.cache.invalidation import COLLECTIONS, INDEX, owner_tag
from samplemind.cache.keys import key
from samplemind.cache.popularity import Popularity
from samplemind.cache.redis_cache import SHORT
from samplemind.cache.serialization import dumps, loads
from samplemind.connections.resources import Connections
from samplemind.errors import UnreadableValueError
from samplemind.search.facets import Facets
from samplemind.search.filters import Filters, KeyMatch, Period, Range
from samplemind.search.full_text import FullTextSearch
from samplemind.search.hybrid import HybridSearch
from samplemind.search.results import Hit, Results, milliseconds_since
from samplemind.search.rows import INDEX_VERSION
from samplemind.search.sound import Sound
from samplemind.search.suggest import Suggestion, SuggestionKind
from samplemind.search.vector import VectorSearch

TTL = SHORT

_LIMIT = 20
_ASK_FOR_NOTHING = (("offset", 0), ("cursor", None), ("explain", False))

_POLICY = Policy(ttl=TTL)
_HIT_FIELDS = tuple(field.name for field in dataclasses.fields(Hit))
_RESULT_FIELDS = tuple(
    field.name for field in dataclasses.fields(Results) if field.name not in ("took_ms", "results")
)
_Search = Callable[[AsyncSession], Awaitable[Results]]


@dataclass(frozen=True, slots=True)
class PopularSearch:
    """What many search for; `count` halves every six hours, `filters` are those that were set."""

    query: str
    filters: Mapping[str, Any]
    limit: int
    count: float


class CachedSearch:
    """The searches of `samplemind.search`, each in a session of its own where it is not cached."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        settings = connections.settings.search
        self._full_text = FullTextSearch(settings)
        self._vector = VectorSearch(settings)
        self._hybrid = HybridSearch(settings)
        self._context = (INDEX_VERSION, settings.text_configuration)
        self.popularity = Popularity(connections.cached.cache, "searches")

    async def search_audio_files(
        self, query: str, *, filters: Filters | None = None, **options: Any
    ) -> Results:
        """Return `FullTextSearch.search_audio_files`; its options, its errors.

        First pages without special wishes are counted, and the popular ones kept warm.
        """
        filters = filters or Filters()
        # Wishes that ask for nothing are the same as none, in the key too.
        options = {
            name: wish for name, wish in options.items() if (name, wish) not in _ASK_FOR_NOTHING
        }
        limit = options.setdefault("limit", _LIMIT)
        if len(options) == 1:
            self.popularity.count(_asked(query, filters, limit))
        search = self._words(query, filters, options)
        return await self._results("words", search, filters, query, options)

    async def fuzzy_search(
        self, query: str, *, filters: Filters | None = None, **options: Any
    ) -> Results:
        """Return `FullTextSearch.fuzzy_search`; its options, its errors."""
        filters = filters or Filters()
        search = partial(self._full_text.fuzzy_search, query=query, filters=filters, **options)
        return await self._results("fuzzy", search, filters, query, options)

    async def similarity_search(
        self, sound: Sound, *, filters: Filters | None = None, **options: Any
    ) -> Results:
        """Return `VectorSearch.similarity_search`; its options, its errors."""
        filters = filters or Filters()
        search = partial(self._vector.similarity_search, sound=sound, filters=filters, **options)
        return await self._results("sound", search, filters, sound, options)

    async def hybrid_search(
        self, query: str, sound: Sound, *, filters: Filters | None = None, **options: Any
    ) -> Results:
        """Return `HybridSearch.hybrid_search`; its options, its errors."""
        filters = filters or Filters()
        search = partial(
            self._hybrid.hybrid_search, query=query, sound=sound, filters=filters, **options
        )
        return await self._results("hybrid", search, filters, (query, sound), options)

    async def autocomplete(
        self, prefix: str, *, filters: Filters | None = None, limit: int = 10
    ) -> tuple[Suggestion, ...]:
        """Return `FullTextSearch.autocomplete`; its errors."""
        filters = filters or Filters()

        async def compute() -> list[Any]:
            async with self._connections.postgres.session() as session:
                found = await self._full_text.autocomplete(
                    session, prefix, filters=filters, limit=limit
                )
            return [[each.text, each.kind.value, each.documents] for each in found]

        place = key("suggest", prefix, filters, limit, self._context)
        stored = await self._connections.cached.fetch(place, compute, _POLICY, _tags(filters))
        return tuple(Suggestion(text, SuggestionKind(kind), files) for text, kind, files in stored)

    async def facets(self, query: str, *, filters: Filters | None = None) -> Facets:
        """Return `FullTextSearch.facets`; its errors."""
        filters = filters or Filters()
        started = time.perf_counter()

        async def compute() -> list[Any]:
            async with self._connections.postgres.session() as session:
                found = await self._full_text.facets(session, query, filters=filters)
            return [found.counted, found.is_exact, found.counts]

        place = key("facets", query, filters, self._context)
        counted, is_exact, numbers = await self._connections.cached.fetch(
            place, compute, _POLICY, _tags(filters)
        )
        return Facets(milliseconds_since(started), counted, is_exact, numbers)

    async def warm(self, asked: bytes) -> bool:
        """Search anew what `popularity` counted, unless its result is fresh for long enough.

        Returns:
            Whether it was searched.

        Raises:
            UnreadableValueError: it is no question of this version.
            SampleMindError: what the search raises.
        """
        query, filters, limit = _read_asked(asked)
        options = {"limit": limit}
        place = self._place("words", filters, query, options)
        left = await self._connections.cached.left(place, _tags(filters))
        if left is not None and left > TTL / 2:
            return False
        compute = partial(self._compute, self._words(query, filters, options))
        return await self._connections.cached.refresh(place, compute, _POLICY, _tags(filters))

    async def popular(self, number: int = 20) -> tuple[PopularSearch, ...]:
        """Return what is searched for most; what another version counted is left out."""
        found = []
        for member, count in await self.popularity.top_counts(number):
            try:
                query, filters, limit = _read_asked(member)
            except UnreadableValueError:
                continue
            found.append(PopularSearch(query, _narrowing(filters), limit, round(count, 2)))
        return tuple(found)

    async def aclose(self) -> None:
        """Send the counts that were gathered."""
        await self.popularity.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    def _words(self, query: str, filters: Filters, options: dict[str, Any]) -> _Search:
        return partial(self._full_text.search_audio_files, query=query, filters=filters, **options)

    def _place(self, kind: str, filters: Filters, asked: object, options: dict[str, Any]) -> str:
        return key("search", kind, asked, filters, options, self._context)

    async def _results(
        self, kind: str, search: _Search, filters: Filters, asked: object, options: dict[str, Any]
    ) -> Results:
        started = time.perf_counter()
        stored = await self._connections.cached.fetch(
            self._place(kind, filters, asked, options),
            partial(self._compute, search),
            _POLICY,
            _tags(filters),
        )
        return _restored(stored, milliseconds_since(started))

    async def _compute(self, search: _Search) -> list[Any]:
        async with self._connections.postgres.session() as session:
            found = await search(session)
        return _stored(found)


def _tags(filters: Filters) -> tuple[str, ...]:
    """Return the tags of what the filters may show: an owner's own files, or any."""
    files = INDEX if filters.owner_id is None else owner_tag(filters.owner_id)
    return (files,) if filters.everything else (files, COLLECTIONS)


def _stored(results: Results) -> list[Any]:
    hits = [[_plain(getattr(hit, name)) for name in _HIT_FIELDS] for hit in results.results]
    return [[getattr(results, name) for name in _RESULT_FIELDS], hits]


def _restored(stored: list[Any], took_ms: float) -> Results:
    facts, hits = stored
    results = tuple(Hit(**dict(zip(_HIT_FIELDS, hit, strict=True))) for hit in hits)
    named = dict(zip(_RESULT_FIELDS, facts, strict=True))
    return Results(took_ms=took_ms, results=results, **named)


def _plain(value: object) -> object:
    # An explanation is any mapping; NumPy's numbers are the same as Python's.
    return {name: float(part) for name, part in value.items()} if isinstance(value, dict) else value


def _asked(query: str, filters: Filters, limit: int) -> bytes:
    """Return the question as bytes: the same question, the same bytes."""
    narrow: dict[str, Any] = {}
    for field in dataclasses.fields(filters):
        value = getattr(filters, field.name)
        if value == field.default:
            continue
        if isinstance(value, Range):
            value = [value.low, value.high]
        elif isinstance(value, Period):
            value = [value.start, value.end]
        narrow[field.name] = str(value) if isinstance(value, KeyMatch) else value
    return dumps([query, narrow, limit])


def _narrowing(filters: Filters) -> dict[str, Any]:
    return {
        field.name: value
        for field in dataclasses.fields(filters)
        if (value := getattr(filters, field.name)) != field.default
    }


def _read_asked(asked: bytes) -> tuple[str, Filters, int]:
    try:
        query, narrow, limit = loads(asked)
        for name in ("tempo_bpm", "duration_s", "loudness_lufs"):
            if name in narrow:
                narrow[name] = Range(*narrow[name])
        if "created" in narrow:
            start, end = narrow["created"]
            narrow["created"] = Period(_time(start), _time(end))
        if "key_match" in narrow:
            narrow["key_match"] = KeyMatch(narrow["key_match"])
        for name in ("viewer_id", "owner_id"):
            if name in narrow and not isinstance(narrow[name], UUID):
                raise TypeError(name)
        return str(query), Filters(**narrow), int(limit)
    except (TypeError, ValueError) as error:
        message = "it is no search of this version"
        raise UnreadableValueError(message) from error


def _time(value: object) -> datetime | None:
    if value is not None and not isinstance(value, datetime):
        raise TypeError("a period has times")
    return value
