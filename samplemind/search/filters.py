"""What narrows a search, besides its words or its sound.

Invariant: every value reaches PostgreSQL as a bound parameter; an empty `Filters` narrows nothing.
"""

import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement

from samplemind.errors import InvalidInputError
from samplemind.models.search_document import SearchDocument

_TONIC = {
    name: pitch
    for pitch, names in enumerate(
        ("C B#", "C# Db", "D", "D# Eb", "E Fb", "F E#", "F# Gb", "G", "G# Ab", "A", "A# Bb", "B Cb")
    )
    for name in names.split()
}
_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_KEY = re.compile(r"^\s*([A-Ga-g])([#♯b♭]?)\s*(m|min|minor|maj|major)?\s*$")
_RANGE = re.compile(r"^\s*(\d+(?:\.\d+)?)?\s*(\.\.)?\s*(\d+(?:\.\d+)?)?\s*$")

KINDS = ("one_shot", "loop")


@dataclass(frozen=True, slots=True)
class Range:
    """An inclusive range, open where a bound is none."""

    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Filters:
    """What a result must be; each field that is none or empty is not looked at."""

    owner_id: UUID | None = None
    tempo_bpm: Range | None = None
    duration_s: Range | None = None
    key: str | None = None
    kind: str | None = None
    tags: tuple[str, ...] = ()

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the SQL conditions, with bound parameters."""
        conditions: list[ColumnElement[bool]] = []
        for column, value in (
            (SearchDocument.owner_id, self.owner_id),
            (SearchDocument.key, self.key),
            (SearchDocument.kind, self.kind),
        ):
            if value is not None:
                conditions.append(column == value)
        for number, bounds in (
            (SearchDocument.tempo_bpm, self.tempo_bpm),
            (SearchDocument.duration_s, self.duration_s),
        ):
            conditions += _within(number, bounds)
        if self.tags:
            conditions.append(SearchDocument.tags.contains(list(self.tags)))
        return conditions


def parse_range(text: str) -> Range:
    """Read `120..130`, `120..`, `..130` or `128`.

    Raises:
        InvalidInputError: it is none of these.
    """
    match = _RANGE.match(text)
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


def parse_key(text: str) -> str:
    """Read a key however it is written (`F#m`, `Gb minor`, `Dmaj`); return it as `F# minor`.

    Raises:
        InvalidInputError: it is no key.
    """
    match = _KEY.match(text)
    sign = {"♯": "#", "♭": "b"}.get(match[2], match[2]) if match else ""
    pitch = _TONIC.get(match[1].upper() + sign) if match else None
    if match is None or pitch is None:
        message = f"{text!r} is no key: write for example F#m, Gb minor or Dmaj"
        raise InvalidInputError(message)
    mode = "minor" if match[3] in ("m", "min", "minor") else "major"
    return f"{_NAMES[pitch]} {mode}"


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


def _within(column: Any, bounds: Range | None) -> list[ColumnElement[bool]]:
    if bounds is None:
        return []
    conditions: list[ColumnElement[bool]] = []
    if bounds.low is not None and bounds.low == bounds.high:
        # A tempo is measured to half a percent, so one number means its neighbourhood.
        return [column.between(bounds.low * 0.995, bounds.low * 1.005)]
    if bounds.low is not None:
        conditions.append(column >= bounds.low)
    if bounds.high is not None:
        conditions.append(column <= bounds.high)
    return conditions
