"""Filters as people and other services write them: text to values.

Invariant: what cannot be read is refused with a sentence that says what can.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from samplemind.errors import InvalidInputError
from samplemind.search.filters import KINDS, Filters, KeyMatch, Period, Range
from samplemind.search.keys import parse_key

_NUMBER = r"(-?\d{1,9}(?:\.\d{1,9})?)"
_RANGE = re.compile(rf"\s*{_NUMBER}?\s*(\.\.)?\s*{_NUMBER}?\s*")


def parse_range(text: str) -> Range:
    """Read `120..130`, `120..`, `..130` or `128`; a number may be negative.

    Raises:
        InvalidInputError: it is none of these.
    """
    match = _RANGE.fullmatch(text)
    if match is None or (match[1] is None and match[3] is None) or (not match[2] and match[3]):
        message = f"{text!r} is no range: write 120..130, 120.., ..130 or 128"
        raise InvalidInputError(message)
    low = float(match[1]) if match[1] else None
    high = float(match[3]) if match[3] else None
    if not match[2]:
        return Range(low, low)
    if low is not None and high is not None and low > high:
        message = f"the range {text!r} ends before it starts"
        raise InvalidInputError(message)
    return Range(low, high)


def parse_kind(text: str) -> str:
    """Read `loop` or `one_shot`, also as `one-shot` or `oneshot`.

    Raises:
        InvalidInputError: it is neither.
    """
    kind = text.strip().lower().replace("-", "_").replace("oneshot", "one_shot")
    if kind not in KINDS:
        message = f"{text!r} is no kind of file: it is one of {', '.join(KINDS)}"
        raise InvalidInputError(message)
    return kind


def parse_period(text: str) -> Period:
    """Read `2026-01-01..2026-03-31`, open ends, one day, or times with a zone in place of days.

    A day means the whole of it, in UTC, so the last day of a period is within it.

    Raises:
        InvalidInputError: it is none of these.
    """
    first, dots, last = (part.strip() for part in text.partition(".."))
    if not first and not last:
        message = f"{text!r} is no period: write 2026-01-01..2026-03-31, 2026-01-01.. or one day"
        raise InvalidInputError(message)
    start = _moment(first, end_of_day=False) if first else None
    last = last if dots else first
    return Period(start, _moment(last, end_of_day=True) if last else None)


def parse_key_match(text: str) -> KeyMatch:
    """Read `exact`, `relative` or `compatible`.

    Raises:
        InvalidInputError: it is none of these.
    """
    try:
        return KeyMatch(text.strip().lower())
    except ValueError:
        message = f"{text!r} is no way to match a key: it is one of {', '.join(KeyMatch)}"
        raise InvalidInputError(message) from None


_READERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "bpm": ("tempo_bpm", parse_range),
    "key": ("key", parse_key),
    "key_match": ("key_match", parse_key_match),
    "kind": ("kind", parse_kind),
    "duration": ("duration_s", parse_range),
    "loudness": ("loudness_lufs", parse_range),
    "created": ("created", parse_period),
}
_LISTS = {"tags": "tags", "formats": "formats"}
_FLAGS = {"half_or_double": "half_or_double"}
NAMES = (*_READERS, *_LISTS, *_FLAGS)


def parse_filters(values: Mapping[str, Any], **who: Any) -> Filters:
    """Read filters that came by name from outside, such as a job's payload.

    Args:
        values: by the names of `NAMES`: text, lists of text for tags and formats, and a boolean
            for `half_or_double`.
        who: `viewer_id`, `owner_id` and `everything`, which never come from outside.

    Raises:
        InvalidInputError: a name is unknown or a value cannot be read.
    """
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if name in _READERS:
            field, read = _READERS[name]
            fields[field] = read(_text(name, value))
        elif name in _LISTS:
            fields[_LISTS[name]] = _texts(name, value)
        elif name in _FLAGS:
            fields[_FLAGS[name]] = _flag(name, value)
        else:
            raise InvalidInputError(_unknown(name))
    return Filters(**fields, **who)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(str(name), NAMES, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"there is no filter {name!r}: there are {', '.join(NAMES)}{hint}"


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        message = f"the filter {name} takes a text"
        raise InvalidInputError(message)
    return str(value)


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        message = f"the filter {name} takes a list of texts"
        raise InvalidInputError(message)
    return tuple(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        message = f"the filter {name} takes true or false"
        raise InvalidInputError(message)
    return value


def _moment(text: str, *, end_of_day: bool) -> datetime:
    try:
        if len(text) == len("2026-01-01"):
            day = datetime.combine(date.fromisoformat(text), time(), UTC)
            return day + timedelta(days=1) if end_of_day else day
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        message = f"{text!r} is no date: write 2026-01-31, or 2026-01-31T12:00:00+00:00"
        raise InvalidInputError(message) from None
    if moment.tzinfo is None:
        message = f"{text!r} has no time zone: write 2026-01-31T12:00:00+00:00"
        raise InvalidInputError(message)
    return moment
