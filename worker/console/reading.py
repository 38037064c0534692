"""What panels show, read so that a slow store holds up nobody.

Each panel is read by one task however many look at it. A page waits for it a moment only: what is
not there by then is shown as it was before, or as on its way, and the next update has it.

Invariant: a reading is never shown as newer than it is, a store that does not answer is told with
what to do about it, and what is kept is bounded.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any

from samplemind.errors import NotFoundError, SampleMindError
from samplemind.log import get_logger

DOCTOR = "`samplemind doctor` says what is wrong and how to mend it"

_MOST_KEPT = 256
_STALE_AFTER_S = 10.0
_LITTLE_PATIENCE_S = 0.2

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Panel:
    """One part of a page.

    Attributes:
        ask: reads what it shows.
        key: tells it from panels of the same name that show something else.
        fresh_s: seconds for which a reading is good enough.
        patience_s: seconds that a page waits for it.
        timeout_s: seconds after which the store counts as unreachable.
        mend: what to do when it is.
    """

    ask: Callable[[], Awaitable[Any]]
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
    overdue: bool = False

    @property
    def took_s(self) -> float:
        return time.monotonic() - self.since


class Board:
    """The last reading of each panel.

    A question is asked anew only after it was answered, however long that takes: of a store that
    hangs, one thread or connection waits, not one for each time that somebody looked.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Reading] = OrderedDict()
        self._asking: dict[Hashable, _Asking] = {}
        self._tasks: set[asyncio.Task[Reading]] = set()

    def __len__(self) -> int:
        return len(self._kept)

    async def read(self, key: Hashable, panel: Panel) -> Reading:
        """Return the newest reading that can be had within the panel's patience."""
        kept = self._kept.get(key)
        if kept is not None and kept.age_s < panel.fresh_s:
            return kept
        asking = self._asking.get(key) or self._begin(key, panel)
        # Of a store that was not there a moment ago, little is hoped.
        lost = asking.overdue or (kept is not None and kept.problem is not None)
        patience_s = _LITTLE_PATIENCE_S if lost else panel.patience_s
        if not asking.overdue:
            patience_s = min(patience_s, max(0.0, panel.timeout_s - asking.took_s))
        await asyncio.wait((asking.task,), timeout=patience_s)
        if asking.task.done() and not asking.task.cancelled():
            return asking.task.result()
        if asking.took_s >= panel.timeout_s:
            return _overdue(key, asking, panel)
        return kept or Reading()

    def forget(self) -> None:
        """Let everything be read anew, because something was changed."""
        self._kept.clear()
        self._asking.clear()

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
        self._asking[key] = _Asking(task, time.monotonic())
        return self._asking[key]

    async def _ask(self, key: Hashable, panel: Panel) -> Reading:
        found = await _answer(key, panel)
        # After `forget`, what was asked before the change is not kept.
        asking = self._asking.get(key)
        if asking is not None and asking.task is asyncio.current_task():
            del self._asking[key]
            self._kept[key] = found
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
