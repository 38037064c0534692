"""What narrows a search, besides its words or its sound, and who is looking.

Invariant: every value reaches PostgreSQL as a bound parameter, and a `Filters` that exists holds
only values that can match. Who may see a file is decided in the query itself, from the collections
as they are at that moment: a viewer sees the library's own files, their own, and those in a public
collection. `Filters()` is a stranger's view; `Filters(everything=True)` is the operators'.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, or_, select, true

from samplemind.errors import InvalidInputError
from samplemind.models.audio_collection import AudioCollection, AudioCollectionItem
from samplemind.models.search_document import SearchDocument
from samplemind.search.keys import compatible_keys, parse_key, relative_key

KINDS = ("one_shot", "loop")
MAX_TAGS = 20
_MAX_TEXT = 200

# A tempo or a length is measured to half a percent, and a loudness to half a unit, so one number
# means its neighbourhood.
_TOLERANCE = 0.005
_LOUDNESS_TOLERANCE = 0.5


@dataclass(frozen=True, slots=True)
class Range:
    """An inclusive range, open where a bound is none."""

    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Period:
    """From one UTC-aware time up to, but not including, another; open where a bound is none."""

    start: datetime | None = None
    end: datetime | None = None


class KeyMatch(StrEnum):
    """Which keys pass for one that is asked for."""

    EXACT = "exact"
    RELATIVE = "relative"  # and the one with the same notes: A minor, C major
    COMPATIBLE = "compatible"  # and its neighbours on the Camelot wheel


@dataclass(frozen=True, slots=True)
class Filters:
    """What a result must be; each field that is none or empty is not looked at.

    Attributes:
        viewer_id: who is looking; none: somebody who has not signed in.
        everything: look at all files, whoever's they are; for operators.
        owner_id: only this user's files, of those that the viewer may see.
        tempo_bpm: in beats a minute.
        half_or_double: a file at half or double the tempo passes too.
        key: as `parse_key` writes it, such as `F# minor`.
        tags: a file must have each of them.
        formats: a file has one of them.
        created: when the file came into the library.
    """

    viewer_id: UUID | None = None
    everything: bool = False
    owner_id: UUID | None = None
    tempo_bpm: Range | None = None
    half_or_double: bool = False
    key: str | None = None
    key_match: KeyMatch = KeyMatch.EXACT
    kind: str | None = None
    duration_s: Range | None = None
    loudness_lufs: Range | None = None
    formats: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    created: Period | None = None

    def __post_init__(self) -> None:
        """Refuse what can match nothing.

        Raises:
            InvalidInputError: a value is not one that the field can have.
        """
        _check_range("a tempo", self.tempo_bpm, above=0)
        _check_range("a duration", self.duration_s, above=0)
        _check_range("a loudness", self.loudness_lufs)
        _check_period(self.created)
        _check_texts("tags", self.tags)
        _check_texts("formats", self.formats)
        if self.key is not None and parse_key(self.key) != self.key:
            message = f"{self.key!r} is no key as the index writes it: {parse_key(self.key)!r} is"
            raise InvalidInputError(message)
        if self.kind is not None and self.kind not in KINDS:
            message = f"{self.kind!r} is no kind of file: it is one of {', '.join(KINDS)}"
            raise InvalidInputError(message)

    @property
    def owner_only(self) -> bool:
        """Whether nothing but owner and viewer narrows: narrow tables can answer alone."""
        return not self.properties()

    @property
    def hides_nothing(self) -> bool:
        """Whether the viewer sees every file of the owner, or of the library where none is set."""
        return self.everything or (self.owner_id is not None and self.owner_id == self.viewer_id)

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return all SQL conditions on `SearchDocument`, with bound parameters."""
        return [
            *self.visible(SearchDocument.owner_id, SearchDocument.file_id),
            *self.properties(),
        ]

    def visible(self, owner_id: Any, file_id: Any) -> list[ColumnElement[bool]]:
        """Return the conditions of owner and viewer on a table that has these two columns."""
        conditions: list[ColumnElement[bool]] = []
        if self.owner_id is not None:
            conditions.append(owner_id == self.owner_id)
        if self.hides_nothing:
            return conditions
        public = in_public_collection(file_id)
        if self.owner_id is not None:
            return [*conditions, public]
        own = owner_id == self.viewer_id if self.viewer_id is not None else None
        reasons = [owner_id.is_(None), *([own] if own is not None else []), public]
        return [or_(*reasons)]

    def properties(self) -> list[ColumnElement[bool]]:
        """Return the conditions on `SearchDocument` that tell what a file is, not whose."""
        return [
            *_tempo(self.tempo_bpm, half_or_double=self.half_or_double),
            *_within(SearchDocument.duration_s, self.duration_s),
            *_within(SearchDocument.loudness_lufs, self.loudness_lufs, _LOUDNESS_TOLERANCE),
            *_keys(self.key, self.key_match),
            *([SearchDocument.kind == self.kind] if self.kind is not None else []),
            *([SearchDocument.format.in_(self.formats)] if self.formats else []),
            *([SearchDocument.tags.contains(list(self.tags))] if self.tags else []),
            *_during(self.created),
        ]


def in_public_collection(file_id: Any) -> ColumnElement[bool]:
    """Return the condition that a file is in a collection that everybody may see."""
    # A scalar subquery is looked up row by row; EXISTS could be hashed whole for every query.
    found = (
        select(true())
        .select_from(AudioCollectionItem)
        .join(AudioCollection, AudioCollection.id == AudioCollectionItem.collection_id)
        .where(AudioCollectionItem.audio_file_id == file_id, AudioCollection.is_public)
        .limit(1)
        .scalar_subquery()
    )
    return found.is_(True)


def _tempo(bounds: Range | None, *, half_or_double: bool) -> list[ColumnElement[bool]]:
    factors = (1.0, 0.5, 2.0) if half_or_double else (1.0,)
    alternatives = [
        _within(SearchDocument.tempo_bpm, _scaled(bounds, factor)) for factor in factors
    ]
    parts = [part[0] for part in alternatives if part]
    return [or_(*parts)] if parts else []


def _scaled(bounds: Range | None, factor: float) -> Range | None:
    if bounds is None:
        return None
    low, high = (None if b is None else b * factor for b in (bounds.low, bounds.high))
    return Range(low, high)


def _keys(key: str | None, match: KeyMatch) -> list[ColumnElement[bool]]:
    if key is None:
        return []
    if match is KeyMatch.COMPATIBLE:
        return [SearchDocument.key.in_(compatible_keys(key))]
    if match is KeyMatch.RELATIVE:
        return [SearchDocument.key.in_((key, relative_key(key)))]
    return [SearchDocument.key == key]


def _within(
    column: Any, bounds: Range | None, tolerance: float | None = None
) -> list[ColumnElement[bool]]:
    """Return at most one condition."""
    if bounds is None or (bounds.low is None and bounds.high is None):
        return []
    low, high = bounds.low, bounds.high
    if low is not None and low == high:
        margin = abs(low) * _TOLERANCE if tolerance is None else tolerance
        return [column.between(low - margin, low + margin)]
    if low is None:
        return [column <= high]
    if high is None:
        return [column >= low]
    return [column.between(low, high)]


def _during(period: Period | None) -> list[ColumnElement[bool]]:
    if period is None:
        return []
    created = SearchDocument.created_at
    return [
        *([created >= period.start] if period.start is not None else []),
        *([created < period.end] if period.end is not None else []),
    ]


def _check_range(name: str, bounds: Range | None, *, above: float = -math.inf) -> None:
    if bounds is None:
        return
    ends = [end for end in (bounds.low, bounds.high) if end is not None]
    if any(not math.isfinite(end) or end < above for end in ends):
        least = "" if above == -math.inf else f", not below {above:g}"
        message = f"{name} must be a finite number{least}"
        raise InvalidInputError(message)
    if len(ends) == 2 and ends[0] > ends[1]:
        message = (
            f"{name} cannot be from {ends[0]:g} to {ends[1]:g}: the range ends before it starts"
        )
        raise InvalidInputError(message)


def _check_period(period: Period | None) -> None:
    if period is None:
        return
    ends = [end for end in (period.start, period.end) if end is not None]
    if any(end.tzinfo is None for end in ends):
        message = "a date needs its time zone"
        raise InvalidInputError(message)
    if len(ends) == 2 and ends[0] >= ends[1]:
        message = "the period ends before it starts"
        raise InvalidInputError(message)


def _check_texts(name: str, texts: Iterable[str]) -> None:
    values = list(texts)
    if len(values) > MAX_TAGS:
        message = f"at most {MAX_TAGS} {name} are looked at, not {len(values)}"
        raise InvalidInputError(message)
    for value in values:
        if not value or len(value) > _MAX_TEXT or "\x00" in value:
            message = f"each of the {name} has from 1 to {_MAX_TEXT} characters"
            raise InvalidInputError(message)
