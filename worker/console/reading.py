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

from samplemind.errors import SampleMindError
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


class Board:
    """The last reading of each panel."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Reading] = OrderedDict()
        self._tasks: dict[Hashable, asyncio.Task[Reading]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def read(self, key: Hashable, panel: Panel) -> Reading:
        """Return the newest reading that can be had within the panel's patience."""
        kept = self._kept.get(key)
        if kept is not None and kept.age_s < panel.fresh_s:
            return kept
        task = self._tasks.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(key, panel))
            self._tasks[key] = task
        # Of a store that was not there a moment ago, little is hoped.
        lost = kept is not None and kept.problem is not None
        await asyncio.wait((task,), timeout=_LITTLE_PATIENCE_S if lost else panel.patience_s)
        if task.done() and not task.cancelled():
            return task.result()
        return kept or Reading()

    def forget(self) -> None:
        """Let everything be read anew, because something was changed."""
        self._kept.clear()
        self._tasks.clear()

    async def aclose(self) -> None:
        """Give up what is being read."""
        tasks = tuple(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, key: Hashable, panel: Panel) -> Reading:
        started = time.monotonic()
        try:
            async with asyncio.timeout(panel.timeout_s):
                value = await panel.ask()
                found = Reading(value, read_at=time.monotonic(), good_for_s=panel.fresh_s)
        except TimeoutError:
            message = f"no answer within {panel.timeout_s:.0f} s"
            found = Reading(problem=message, mend=panel.mend, read_at=time.monotonic())
        except SampleMindError as error:
            found = Reading(
                problem=str(error), mend=panel.mend, error=error, read_at=time.monotonic()
            )
        except Exception:  # noqa: BLE001
            # The outermost edge of a panel: the rest of the page is shown all the same.
            _log.exception("panel_failed", panel=str(key))
            message = "the console failed to read this; its log says why"
            found = Reading(problem=message, mend=panel.mend, read_at=time.monotonic())
        self._keep(key, found)
        if found.problem is not None:
            seconds = round(time.monotonic() - started, 3)
            _log.warning("panel_unreachable", panel=str(key), error=found.problem, seconds=seconds)
        return found

    def _keep(self, key: Hashable, found: Reading) -> None:
        # After `forget` a task may end that began before the change: its reading is not kept.
        if self._tasks.get(key) is not asyncio.current_task():
            return
        del self._tasks[key]
        self._kept[key] = found
        self._kept.move_to_end(key)
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
