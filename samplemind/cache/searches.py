"""Searches with the cache before them: what services and the command line call.

Staleness allowed: by a write to the index, to collections or to accounts none in Redis and in the
process that wrote, whose write makes the results that it could change invalid before it is told
done, and at most 0.9 s in the local layer of another process. What changes results otherwise
(usage counts, statistics of words) shows within `TTL`.

Invariant: who looks is part of the key and of the tags: no viewer ever gets what another may see.
"""

import dataclasses
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self
from uuid import UUID

from samplemind.cache.computed import Policy
from samplemind.cache.invalidation import (
    COLLECTIONS,
    GENERATION,
    INDEX,
    PUBLISHED,
    owner_tag,
)
from samplemind.cache.keys import key
from samplemind.cache.popularity import Popularity
from samplemind.cache.questions import LIMIT, read_question, write_question
from samplemind.cache.redis_cache import SHORT
from samplemind.connections.resources import Connections
from samplemind.errors import UnreadableValueError
from samplemind.search.facets import Facets
from samplemind.search.filters import Filters
from samplemind.search.question import Answer, Question, Search, Searches, question
from samplemind.search.results import Hit, Results, milliseconds_since
from samplemind.search.rows import INDEX_VERSION
from samplemind.search.sound import Sound
from samplemind.search.suggest import Suggestion, SuggestionKind

TTL = SHORT

# A warming comes every two minutes and may take one: what has less left could die before the next.
_RENEW_BELOW = TTL * 2 / 3
_SUGGESTIONS = 10
_POLICY = Policy(ttl=TTL)
_HIT_FIELDS = tuple(field.name for field in dataclasses.fields(Hit))
_RESULT_FIELDS = tuple(
    field.name for field in dataclasses.fields(Results) if field.name not in ("took_ms", "results")
)


@dataclass(frozen=True, slots=True)
class PopularSearch:
    """What many search for; `count` halves every six hours, `filters` are those that were set."""

    query: str
    filters: Mapping[str, Any]
    limit: int
    count: float


class CachedSearch:
    """The searches of `samplemind.search`, each in a session of its own where it is not cached.

    What others will ask again is counted, and `samplemind.cache.warming` keeps the popular warm:
    first pages, and those by sound only where they name files of the library.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        settings = connections.settings.search
        self._searches = Searches(settings)
        self._context = (INDEX_VERSION, settings.text_configuration)
        self.popularity = Popularity(connections.cached.cache, "searches")
        self.files = Popularity(connections.cached.cache, "files")

    async def search_audio_files(
        self, query: str, *, filters: Filters | None = None, limit: int = LIMIT, **options: Any
    ) -> Results:
        """Return `FullTextSearch.search_audio_files`; its options, its errors."""
        asked = question(Search.WORDS, filters, query=query, limit=limit, **options)
        return await self._results(asked)

    async def fuzzy_search(
        self, query: str, *, filters: Filters | None = None, limit: int = LIMIT, **options: Any
    ) -> Results:
        """Return `FullTextSearch.fuzzy_search`; its options, its errors."""
        asked = question(Search.FUZZY, filters, query=query, limit=limit, **options)
        return await self._results(asked)

    async def similar_files(
        self,
        like: Sequence[UUID],
        *,
        unlike: Sequence[UUID] = (),
        filters: Filters | None = None,
        limit: int = LIMIT,
        **options: Any,
    ) -> Results:
        """Return what sounds like these files of the library, and not like those.

        Options and errors are those of `VectorSearch.similarity_search`.

        Raises:
            NotFoundError: a file is not in the index, or not to be seen, or has no embedding.
        """
        asked = question(
            Search.SIMILAR, filters, like=tuple(sorted(like)), unlike=tuple(sorted(unlike)),
            limit=limit, **options,
        )  # fmt: skip
        return await self._results(asked)

    async def hybrid_files(
        self,
        query: str,
        like: Sequence[UUID],
        *,
        filters: Filters | None = None,
        limit: int = LIMIT,
        **options: Any,
    ) -> Results:
        """Return what matches the words and sounds like these files of the library.

        Options and errors are those of `HybridSearch.hybrid_search` and `similar_files`.
        """
        like = tuple(sorted(like))
        asked = question(Search.HYBRID, filters, query=query, like=like, limit=limit, **options)
        return await self._results(asked)

    async def similarity_search(
        self, sound: Sound, *, filters: Filters | None = None, **options: Any
    ) -> Results:
        """Return `VectorSearch.similarity_search` of any sound; its options, its errors."""
        filters = filters or Filters()
        search = partial(
            self._searches.vector.similarity_search, sound=sound, filters=filters, **options
        )
        return await self._results_of_sound("sound", search, filters, (sound, options))

    async def hybrid_search(
        self, query: str, sound: Sound, *, filters: Filters | None = None, **options: Any
    ) -> Results:
        """Return `HybridSearch.hybrid_search` with any sound; its options, its errors."""
        filters = filters or Filters()
        search = partial(
            self._searches.hybrid.hybrid_search,
            query=query,
            sound=sound,
            filters=filters,
            **options,
        )
        return await self._results_of_sound("words_sound", search, filters, (query, sound, options))

    async def autocomplete(
        self, prefix: str, *, filters: Filters | None = None, limit: int = _SUGGESTIONS
    ) -> tuple[Suggestion, ...]:
        """Return `FullTextSearch.autocomplete`; its errors."""
        stored = await self._answer(question(Search.SUGGEST, filters, prefix=prefix, limit=limit))
        return tuple(Suggestion(text, SuggestionKind(kind), files) for text, kind, files in stored)

    async def facets(self, query: str, *, filters: Filters | None = None) -> Facets:
        """Return `FullTextSearch.facets`; its errors."""
        started = time.perf_counter()
        counted, is_exact, numbers = await self._answer(
            question(Search.FACETS, filters, query=query)
        )
        return Facets(milliseconds_since(started), counted, is_exact, numbers)

    async def warm(self, asked: bytes) -> bool:
        """Ask anew what `popularity` counted, unless its answer is fresh for long enough.

        Returns:
            Whether it was asked.

        Raises:
            UnreadableValueError: it is no question of this version.
            SampleMindError: what the search raises.
        """
        return await self._renew(read_question(asked))

    async def warm_file(self, file_id: bytes) -> bool:
        """Do the same for what sounds like a file that `files` counted, as everybody sees it.

        Raises:
            UnreadableValueError: it is no id.
            NotFoundError: it is not in the index, or not for everybody, or has no embedding.
        """
        try:
            like = (UUID(bytes=file_id),)
        except ValueError as error:
            message = "it is no id of a file"
            raise UnreadableValueError(message) from error
        return await self._renew(question(Search.SIMILAR, None, like=like, limit=LIMIT))

    async def popular(self, number: int = 20) -> tuple[PopularSearch, ...]:
        """Return what is searched for most; what another version counted is left out."""
        found = []
        for member, count in await self.popularity.top_counts(number):
            try:
                asked = read_question(member)
            except UnreadableValueError:
                continue
            found.append(
                PopularSearch(
                    str(asked.asked.get("query", "")),
                    _narrowing(asked.filters),
                    int(asked.asked.get("limit", LIMIT)),
                    round(count, 2),
                )
            )
        return tuple(found)

    async def aclose(self) -> None:
        """Send the counts that were gathered."""
        await self.popularity.aclose()
        await self.files.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    async def _results(self, asked: Question) -> Results:
        started = time.perf_counter()
        stored = await self._answer(asked)
        return _restored(stored, milliseconds_since(started))

    async def _answer(self, asked: Question) -> Any:
        written = write_question(asked)
        if asked.is_repeatable:
            self.popularity.count(written)
        for file_id in asked.files:
            self.files.count(file_id.bytes)
        return await self._connections.cached.fetch(
            self._place(written), partial(self._compute, asked), _POLICY, _tags(asked)
        )

    async def _renew(self, asked: Question) -> bool:
        place, tags = self._place(write_question(asked)), _tags(asked)
        left = await self._connections.cached.left(place, tags)
        if left is not None and left > _RENEW_BELOW:
            return False
        compute = partial(self._compute, asked)
        return await self._connections.cached.refresh(place, compute, _POLICY, tags)

    def _place(self, asked: bytes) -> str:
        return key("search", asked, self._context)

    async def _compute(self, asked: Question) -> Any:
        async with self._connections.postgres.session() as session:
            return _stored(await self._searches.answer(session, asked))

    async def _results_of_sound(
        self, kind: str, search: Callable[..., Awaitable[Results]], filters: Filters, asked: object
    ) -> Results:
        started = time.perf_counter()

        async def compute() -> Any:
            async with self._connections.postgres.session() as session:
                return _stored(await search(session))

        place = key("search", kind, filters, asked, self._context)
        stored = await self._connections.cached.fetch(place, compute, _POLICY, _view(filters))
        return _restored(stored, milliseconds_since(started))


def _tags(asked: Question) -> tuple[str, ...]:
    """Return the tags of what may change the answer: the files in view, and those it names."""
    if not asked.files or asked.filters.owner_id is None:
        return _view(asked.filters)
    # What it names may be of anybody whom the viewer sees.
    wider = _view(dataclasses.replace(asked.filters, owner_id=None))
    return tuple(dict.fromkeys((*_view(asked.filters), *wider)))


def _view(filters: Filters) -> tuple[str, ...]:
    """Return the tags of what the filters may show, as `Filters.visible` has it.

    A file that is not in view can change nothing but statistics of words, so a write to it leaves
    the answer valid.
    """
    owner, viewer = filters.owner_id, filters.viewer_id
    if owner is not None:
        alone = filters.everything or owner == viewer
        shown: tuple[str, ...] = (owner_tag(owner), *(() if alone else (COLLECTIONS,)))
    elif filters.everything:
        shown = (INDEX,)
    else:
        own = (owner_tag(viewer),) if viewer is not None else ()
        shown = (owner_tag(None), *own, PUBLISHED, COLLECTIONS)
    return (GENERATION, *shown)


def _stored(answer: Answer) -> list[Any]:
    """Return the answer as `_answer` gives it back: plain values."""
    match answer:
        case Results():
            hits = [[_plain(getattr(hit, name)) for name in _HIT_FIELDS] for hit in answer.results]
            return [[getattr(answer, name) for name in _RESULT_FIELDS], hits]
        case Facets():
            return [answer.counted, answer.is_exact, answer.counts]
        case suggestions:
            return [[each.text, each.kind.value, each.documents] for each in suggestions]


def _restored(stored: list[Any], took_ms: float) -> Results:
    facts, hits = stored
    results = tuple(Hit(**dict(zip(_HIT_FIELDS, hit, strict=True))) for hit in hits)
    named = dict(zip(_RESULT_FIELDS, facts, strict=True))
    return Results(took_ms=took_ms, results=results, **named)


def _plain(value: object) -> object:
    # An explanation is any mapping; NumPy's numbers are the same as Python's.
    return {name: float(part) for name, part in value.items()} if isinstance(value, dict) else value


def _narrowing(filters: Filters) -> dict[str, Any]:
    return {
        field.name: value
        for field in dataclasses.fields(filters)
        if (value := getattr(filters, field.name)) != field.default
    }
