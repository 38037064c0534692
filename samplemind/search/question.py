"""What a search is asked, as a plain value, and asking it: whichever of the searches it is.

Invariant: the same question is the same value, however it was written: wishes that ask for nothing
are not part of it. Asking does what the search itself does, with its errors, and nothing besides.
"""

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.search.facets import Facets
from samplemind.search.filters import Filters
from samplemind.search.full_text import FullTextSearch
from samplemind.search.fusion import Fusion
from samplemind.search.hybrid import HybridSearch
from samplemind.search.nearest import Metric
from samplemind.search.results import Results
from samplemind.search.sound import Sound, combine, stored_sounds
from samplemind.search.suggest import Suggestion
from samplemind.search.vector import VectorSearch
from samplemind.settings import SearchSettings

_ASKS_FOR_NOTHING = (
    ("offset", 0),
    ("cursor", None),
    ("explain", False),
    ("highlights", True),
    ("languages", ()),
    ("aspects", None),
    ("unlike", ()),
    ("metric", Metric.COSINE),
    ("fusion", Fusion.RECIPROCAL_RANK),
)
# Of a page that somebody turned to, or an operator's look behind the scores.
_OF_THE_MOMENT = ("offset", "cursor", "explain")

Answer = Results | Facets | tuple[Suggestion, ...]


class Search(StrEnum):
    """Which search is asked."""

    WORDS = "words"
    FUZZY = "fuzzy"
    SUGGEST = "suggest"
    FACETS = "facets"
    SIMILAR = "similar"  # to files of the library
    HYBRID = "hybrid"  # words, and files of the library


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        asked: the search's arguments by name; files of the library as their ids.
    """

    search: Search
    filters: Filters
    asked: Mapping[str, Any]

    @property
    def files(self) -> tuple[UUID, ...]:
        """The files of the library that it names."""
        return (*self.asked.get("like", ()), *self.asked.get("unlike", ()))

    @property
    def is_repeatable(self) -> bool:
        """Whether others will ask the same."""
        return not any(name in self.asked for name in _OF_THE_MOMENT)


def question(search: Search, filters: Filters | None, **asked: Any) -> Question:
    """Return the question with these arguments."""
    filters = filters or Filters()
    if "owner" in asked and (owner := asked.pop("owner")) is not None:
        filters = dataclasses.replace(filters, owner_id=owner)
    if "languages" in asked:
        asked["languages"] = tuple(sorted(asked["languages"]))
    wishes = {name: wish for name, wish in asked.items() if (name, wish) not in _ASKS_FOR_NOTHING}
    return Question(search, filters, wishes)


class Searches:
    """All the searches; one object may serve any number of sessions."""

    def __init__(self, settings: SearchSettings | None = None) -> None:
        self.full_text = FullTextSearch(settings)
        self.vector = VectorSearch(settings)
        self.hybrid = HybridSearch(full_text=self.full_text, vector=self.vector)

    async def answer(self, session: AsyncSession, asked: Question) -> Answer:
        """Ask the search that the question is for.

        Raises:
            InvalidInputError: the question cannot be read.
            NotFoundError: a file that it names is not in the index, or not to be seen, or has no
                embedding.
            TransientError: the time limit ended a query.
        """
        options: dict[str, Any] = {**asked.asked, "filters": asked.filters}
        match asked.search:
            case Search.SUGGEST:
                return await self.full_text.autocomplete(session, **options)
            case Search.FACETS:
                return await self.full_text.facets(session, **options)
            case Search.WORDS:
                return await self.full_text.search_audio_files(session, **options)
            case Search.FUZZY:
                return await self.full_text.fuzzy_search(session, **options)
        sound = await _sound_of(session, asked)
        options = {name: wish for name, wish in options.items() if name not in ("like", "unlike")}
        search: Callable[..., Awaitable[Results]] = (
            self.vector.similarity_search
            if asked.search is Search.SIMILAR
            else self.hybrid.hybrid_search
        )
        return await search(session, sound=sound, **options)


async def _sound_of(session: AsyncSession, asked: Question) -> Sound:
    like, unlike = asked.asked["like"], asked.asked.get("unlike", ())
    found = await stored_sounds(
        session,
        dict.fromkeys((*like, *unlike)),
        filters=asked.filters,
        with_blocks="aspects" in asked.asked,
    )
    sounds = {sound.made_from[0]: sound for sound in found}
    likes, dislikes = [sounds[each] for each in like], [sounds[each] for each in unlike]
    return likes[0] if len(likes) == 1 and not dislikes else combine(likes, dislikes)
