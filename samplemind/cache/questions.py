"""What searches are asked, as bytes: to tell one from another, to count, and to ask again.

Invariant: the same question is the same bytes, in every process.
"""

import dataclasses
from collections.abc import Mapping
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
from samplemind.search.question import Question, Search

LIMIT = 20
_RANGES = ("tempo_bpm", "duration_s", "loudness_lufs")


def write_question(asked: Question) -> bytes:
    """Return the question as bytes; `read_question` reads them.

    Raises:
        InvalidInputError: an argument is no plain value.
    """
    wishes = {name: _plain(asked.asked[name]) for name in sorted(asked.asked)}
    return dumps([asked.search.value, _narrow(asked.filters), wishes])


def read_question(data: bytes) -> Question:
    """Return the question that `write_question` wrote.

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
