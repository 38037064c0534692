"""What panels show, read so that a slow store holds up nobody.

Each panel is read by one task however many look at it. A page waits for it a moment only: what is
not there by then is shown as it was before, or as on its way, and the next update has it.

Invariant: a reading is never shown as newer than it is, a store that does not answer is told with
what to do about it, and what is kept is bounded.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Hashable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from samplemind.errors import NotFoundError, SampleMindError
from samplemind.log import get_logger

DOCTOR = "`samplemind doctor` says what is wrong and how to mend it"

_MOST_KEPT = 256
_STALE_AFTER_S = 10.0
_LITTLE_PATIENCE_S = 0.2

_log = get_logger(__name__)


class Subject(StrEnum):
    """What a panel tells of and an action changes."""

    BACKUPS = "backups"
    BATCHES = "batches"
    CACHE = "cache"
    JOBS = "jobs"
    LETTERS = "letters"
    SCHEDULE = "schedule"


@dataclass(frozen=True, slots=True)
class Panel:
    """One part of a page.

    Attributes:
        ask: reads what it shows.
        subject: what it tells of, if any action of the console changes it at once.
        key: tells it from panels of the same name that show something else.
        fresh_s: seconds for which a reading is good enough.
        patience_s: seconds that a page waits for it.
        timeout_s: seconds after which the store counts as unreachable.
        mend: what to do when it is.
    """

    ask: Callable[[], Awaitable[Any]]
    subject: Subject | None = None
    key: tuple[Hashable, ...] = ()
    fresh_s: float = 1.0
    patience_s: float = 1.0
    timeout_s: float = 5.0
    mend: str = DOCTOR


@dataclass(frozen=True, slots=True)
class Reading:
    """What a panel shows: a value, a problem, or neither while the first reading is on its way."""

    value: Any = None
    problem: str | None = None
    mend: str | None = None
    error: SampleMindError | None = None
    read_at: float = 0.0
    good_for_s: float = 0.0
    """Seconds for which nobody wants a newer one."""

    @property
    def ready(self) -> bool:
        """Whether there is a value."""
        return self.read_at > 0 and self.problem is None

    @property
    def waiting(self) -> bool:
        """Whether nothing is known yet."""
        return self.read_at == 0 and self.problem is None

    @property
    def missed(self) -> bool:
        """Whether a store did not answer."""
        return self.problem is not None and not isinstance(self.error, NotFoundError)

    @property
    def stale(self) -> bool:
        """Whether a newer reading is overdue."""
        return self.ready and self.age_s > max(_STALE_AFTER_S, 2 * self.good_for_s)

    @property
    def age_s(self) -> float:
        """Seconds since it was read."""
        return time.monotonic() - self.read_at


@dataclass(slots=True)
class _Asking:
    """A question that is under way."""

    task: asyncio.Task[Reading]
    since: float
    subject: Subject | None
    overdue: bool = False
    outdated: bool = False
    """What it reads was changed since it was asked: the answer is not the one that is wanted."""

    @property
    def took_s(self) -> float:
        return time.monotonic() - self.since


class Board:
    """The last reading of each panel.

    A question is asked anew only after it was answered, however long that takes: of a store that
    hangs, one thread or connection waits, not one for each time that somebody looked or acted.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, tuple[Reading, Subject | None]] = OrderedDict()
        self._asking: dict[Hashable, _Asking] = {}
        self._tasks: set[asyncio.Task[Reading]] = set()

    def __len__(self) -> int:
        return len(self._kept)

    async def read(self, key: Hashable, panel: Panel) -> Reading:
        """Return the newest reading that can be had within the panel's patience."""
        kept, _ = self._kept.get(key, (None, None))
        if kept is not None and kept.age_s < panel.fresh_s:
            return kept
        asking = self._asking.get(key) or self._begin(key, panel)
        # Of a store that was not there a moment ago, little is hoped.
        lost = asking.overdue or (kept is not None and kept.missed)
        patience_s = _LITTLE_PATIENCE_S if lost else panel.patience_s
        if not asking.overdue:
            patience_s = min(patience_s, max(0.0, panel.timeout_s - asking.took_s))
        await asyncio.wait((asking.task,), timeout=patience_s)
        if asking.task.done() and not asking.task.cancelled():
            return asking.task.result()
        if asking.took_s >= panel.timeout_s:
            return _overdue(key, asking, panel)
        return kept or Reading()

    def forget(self, changed: Collection[Subject]) -> None:
        """Let what tells of these be read anew.

        What tells of something else stays, as it may take minutes to read, and so does what tells
        that a store did not answer: asking it again at once would only wait again.
        """
        for key, (reading, subject) in tuple(self._kept.items()):
            if subject in changed and not reading.missed:
                del self._kept[key]
        for asking in self._asking.values():
            asking.outdated = asking.outdated or asking.subject in changed

    async def aclose(self) -> None:
        """Give up what is being read."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, key: Hashable, panel: Panel) -> _Asking:
        task = asyncio.create_task(self._ask(key, panel))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._asking[key] = _Asking(task, time.monotonic(), panel.subject)
        return self._asking[key]

    async def _ask(self, key: Hashable, panel: Panel) -> Reading:
        asking = self._asking[key]
        found = await _answer(key, panel)
        while asking.outdated and not found.missed:
            asking.outdated = asking.overdue = False
            asking.since = time.monotonic()
            found = await _answer(key, panel)
        del self._asking[key]
        self._kept[key] = found, panel.subject
        self._kept.move_to_end(key)
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return found


async def _answer(key: Hashable, panel: Panel) -> Reading:
    error: SampleMindError | None = None
    try:
        value = await panel.ask()
        return Reading(value, read_at=time.monotonic(), good_for_s=panel.fresh_s)
    except SampleMindError as failure:
        error, message = failure, str(failure)
        if not isinstance(failure, NotFoundError):
            _log.warning("panel_unreachable", panel=str(key), error=message)
    except Exception:  # noqa: BLE001
        # The outermost edge of a panel: the rest of the page is shown all the same.
        message = "the console failed to read this; its log says why"
        _log.exception("panel_failed", panel=str(key))
    return Reading(problem=message, mend=panel.mend, error=error, read_at=time.monotonic())


def _overdue(key: Hashable, asking: _Asking, panel: Panel) -> Reading:
    if not asking.overdue:
        asking.overdue = True
        _log.warning("panel_unreachable", panel=str(key), error="no answer in time")
    message = f"no answer for {asking.took_s:.0f} s"
    return Reading(problem=message, mend=panel.mend, read_at=time.monotonic())
