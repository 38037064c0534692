"""What the data layer counts while it works, for whoever serves metrics in this process.

Invariant: counting never fails and never waits. Where nobody listens (a service, the command line)
it costs one comparison and nothing is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Counted(StrEnum):
    """What is counted."""

    BATCH_ITEMS = "batch_items"  # ended, by their state
    LIMIT_REFUSALS = "limit_refusals"  # chunks that an owner's limit sent back, by which limit


Listener = Callable[[Counted, str, int], None]


@dataclass(slots=True)
class _Tally:
    listener: Listener | None = None


_tally = _Tally()


def listen(listener: Listener | None) -> None:
    """Tell the listener of everything that is counted from now on; none: nobody."""
    _tally.listener = listener


def count(what: Counted, label: str, number: int = 1) -> None:
    """Count so many of the thing, under a label of a closed set."""
    if _tally.listener is not None and number:
        _tally.listener(what, label, number)
