"""What searches are asked, as plain values: to tell one from another, to count, and to ask again.

Invariant: the same question is the same value and the same bytes, however it was written: wishes
that ask for nothing are not part of it.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from samplemind.cache.serialization import dumps, loads
from samplemind.errors import InvalidInputError, UnreadableValueError
from samplemind.search.filters import Filters, KeyMatch, Period, Range
from samplemind.search.fusion import Fusion
from samplemind.search.languages import TextConfiguration
from samplemind.search.nearest import Metric

LIMIT = 20
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
_RANGES = ("tempo_bpm", "duration_s", "loudness_lufs")


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

    def as_bytes(self) -> bytes:
        """Return it as bytes; `read_question` reads them.

        Raises:
            InvalidInputError: an argument is no plain value.
        """
        asked = {name: _plain(self.asked[name]) for name in sorted(self.asked)}
        return dumps([self.search.value, _narrow(self.filters), asked])


def question(search: Search, filters: Filters | None, **asked: Any) -> Question:
    """Return the question with these arguments."""
    filters = filters or Filters()
    if "owner" in asked and (owner := asked.pop("owner")) is not None:
        filters = dataclasses.replace(filters, owner_id=owner)
    if "languages" in asked:
        asked["languages"] = tuple(sorted(asked["languages"]))
    wishes = {name: wish for name, wish in asked.items() if (name, wish) not in _ASKS_FOR_NOTHING}
    return Question(search, filters, wishes)


def read_question(data: bytes) -> Question:
    """Return the question that `as_bytes` wrote.

    Raises:
        UnreadableValueError: it is none of this version.
    """
    try:
        search, narrow, asked = loads(data)
        for name, kind in (("metric", Metric), ("fusion", Fusion)):
            if name in asked:
                asked[name] = kind(asked[name])
        if "languages" in asked:
            asked["languages"] = tuple(map(TextConfiguration, asked["languages"]))
        return Question(Search(search), _widened(narrow), asked)
    except (TypeError, ValueError, AttributeError, InvalidInputError) as error:
        message = "it is no search of this version"
        raise UnreadableValueError(message) from error


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        return {name: _plain(value[name]) for name in sorted(value)}
    if isinstance(value, list | tuple | set | frozenset):
        return tuple(map(_plain, value))
    return value


def _narrow(filters: Filters) -> dict[str, Any]:
    narrow: dict[str, Any] = {}
    for field in dataclasses.fields(filters):
        value = getattr(filters, field.name)
        if value == field.default:
            continue
        if isinstance(value, Range):
            value = [value.low, value.high]
        elif isinstance(value, Period):
            value = [value.start, value.end]
        narrow[field.name] = _plain(value) if isinstance(value, KeyMatch) else value
    return narrow


def _widened(narrow: dict[str, Any]) -> Filters:
    for name in _RANGES:
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
    return Filters(**narrow)


def _time(value: object) -> datetime | None:
    if value is not None and not isinstance(value, datetime):
        raise TypeError("a period has times")
    return value
