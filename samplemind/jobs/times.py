"""When a recurring job is due, as slots: points in time that every beat computes alike.

Invariant: a slot follows from the schedule and the clock alone, never from when a process started,
so that two beats, or one that was restarted, mean the same run by the same slot. Times are UTC.
"""

import re
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

from samplemind.errors import InvalidInputError

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_INTERVAL = re.compile(r"(\d+)\s*([smhd])")
_CRON_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_FURTHEST_DAYS = 5 * 366
"""Days searched for a slot: 29 February on a given weekday may be far away."""


@dataclass(frozen=True)
class Every:
    """A fixed interval, counted from the epoch and moved by an offset."""

    seconds: int
    offset_s: int = 0
    """Moves the slots, so that jobs of one interval do not all start in the same second."""

    def latest(self, now: datetime) -> datetime:
        """Return the last slot that is not after `now`."""
        since = int(now.timestamp()) - self.offset_s
        return datetime.fromtimestamp(since - since % self.seconds + self.offset_s, UTC)

    def following(self, slot: datetime) -> datetime:
        """Return the first slot after this time."""
        return self.latest(slot) + timedelta(seconds=self.seconds)

    def __str__(self) -> str:
        for unit, size in reversed(_UNITS_S.items()):
            if self.seconds % size == 0:
                return f"every {self.seconds // size} {unit}"
        return f"every {self.seconds} s"


@dataclass(frozen=True)
class Cron:
    """Minute, hour, day of the month, month, day of the week (0 is Sunday); all must fit."""

    text: str

    def latest(self, now: datetime) -> datetime:
        """Return the last slot that is not after `now`."""
        for back in range(_FURTHEST_DAYS):
            day = now - timedelta(days=back)
            limit = (now.hour, now.minute) if back == 0 else (23, 59)
            for clock in reversed(self._clocks):
                if self._fits(day) and clock <= limit:
                    return _at(day, clock)
        raise InvalidInputError(self._never)

    def following(self, slot: datetime) -> datetime:
        """Return the first slot after this time."""
        for ahead in range(_FURTHEST_DAYS):
            day = slot + timedelta(days=ahead)
            limit = (slot.hour, slot.minute) if ahead == 0 else (-1, -1)
            for clock in self._clocks:
                if self._fits(day) and clock > limit:
                    return _at(day, clock)
        raise InvalidInputError(self._never)

    def __str__(self) -> str:
        return self.text

    @property
    def _never(self) -> str:
        return f"the cron time {self.text!r} never comes"

    def _fits(self, day: datetime) -> bool:
        _, _, days, months, weekdays = self._fields
        return day.day in days and day.month in months and day.isoweekday() % 7 in weekdays

    @cached_property
    def _clocks(self) -> list[tuple[int, int]]:
        minutes, hours, *_ = self._fields
        return sorted((hour, minute) for hour in hours for minute in minutes)

    @cached_property
    def _fields(self) -> list[frozenset[int]]:
        parts = self.text.split()
        if len(parts) != len(_CRON_BOUNDS):
            message = f"a cron time has five fields, as in '30 3 * * *': {self.text!r} has not"
            raise InvalidInputError(message)
        return [
            _parse_field(part, *bounds) for part, bounds in zip(parts, _CRON_BOUNDS, strict=True)
        ]


When = Every | Cron


def parse_when(text: str, *, name: str = "") -> When:
    """Read "20s", "15m", "every 2 h" or a cron time; `name` spreads intervals apart.

    Raises:
        InvalidInputError: it is neither, or never comes.
    """
    cleaned = text.strip()
    interval = _INTERVAL.fullmatch(cleaned.removeprefix("every").strip())
    if interval:
        seconds = int(interval[1]) * _UNITS_S[interval[2]]
        if seconds < 1:
            message = f"an interval is at least a second: {text!r}"
            raise InvalidInputError(message)
        return Every(seconds, zlib.crc32(name.encode()) % seconds)
    cron = Cron(cleaned)
    cron.latest(datetime.now(UTC))
    return cron


def _parse_field(text: str, low: int, high: int) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/(\d+))?", part)
        if found is None:
            message = f"{part!r} is no field of a cron time"
            raise InvalidInputError(message)
        first = low if found[1] is None else int(found[1])
        last = high if found[1] is None else int(found[2] or first)
        step = int(found[3] or 1)
        if not (low <= first <= last <= high) or step == 0:
            message = f"{part!r} is outside of {low} to {high}"
            raise InvalidInputError(message)
        values.update(range(first, last + 1, step))
    return frozenset(values)


def _at(day: datetime, clock: tuple[int, int]) -> datetime:
    return day.astimezone(UTC).replace(hour=clock[0], minute=clock[1], second=0, microsecond=0)
