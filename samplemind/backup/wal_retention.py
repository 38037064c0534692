"""Which segments of WAL are kept: a pure plan.

Recovery to a moment begins at the newest base backup before it. So what is needed is everything
from the base that stood at the begin of the window on; and of each base that is older (kept by the
week, the month, on hold) only the segments of its own making, without which it is not consistent.

Invariant: no moment of the window loses what its recovery needs. Where nothing good stands, every
segment stays: nobody knows what it is for. Histories of timelines are small and always stay.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from samplemind.backup.wal import WalSegment, is_segment_name

_SKEW = timedelta(hours=1)
"""Clocks of the store and of the host may differ by so much."""


@dataclass(frozen=True)
class WalBase:
    """What a base backup, full or incremental, needs of the WAL."""

    first: WalSegment
    last: WalSegment
    """Holds the position from which on it is consistent."""
    finished_at: datetime
    usable: bool = True
    """Whether recovery can begin from it: it is good, and so is all that it stands on."""


@dataclass(frozen=True)
class WalPlan:
    """Where the window begins, and the names of the segments that may go."""

    window: WalSegment | None
    """From here on everything stays; none: everything there is."""
    delete: tuple[str, ...]


def plan_wal(
    names: Iterable[str], bases: Sequence[WalBase], window_start: datetime, segment_bytes: int
) -> WalPlan:
    """Decide over every stored segment of one server.

    Args:
        names: of the files in the archive.
        bases: all base backups that are kept.
        window_start: recovery to any moment since then stays possible.
        segment_bytes: the size of each.
    """
    window = _begin(bases, window_start)
    if window is None:
        return WalPlan(None, ())
    delete = []
    for name in sorted(names):
        if not is_segment_name(name):
            continue
        segment = WalSegment.parse(name, segment_bytes)
        before = segment.timeline <= window.timeline and segment.number < window.number
        if before and not any(_needs(base, segment) for base in bases):
            delete.append(name)
    return WalPlan(window, tuple(delete))


def _begin(bases: Sequence[WalBase], window_start: datetime) -> WalSegment | None:
    usable = sorted((base for base in bases if base.usable), key=lambda base: base.finished_at)
    if not usable:
        return None
    before = [base for base in usable if base.finished_at <= window_start - _SKEW]
    return before[-1].first if before else usable[0].first


def _needs(base: WalBase, segment: WalSegment) -> bool:
    return (
        base.first.timeline == segment.timeline
        and base.first.number <= segment.number <= base.last.number
    )
