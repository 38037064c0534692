"""For each number on stdin, a process that drains and kills itself at that line of the drain.

Lines are counted as they are first reached, over all of the modules that a drain runs through. The
processes are forked from one that has loaded everything, which opens no connection itself.
"""

import asyncio
import os
import signal
import sys
from types import FrameType
from typing import Any

from samplemind.connections.resources import Connections
from samplemind.search import dirty, indexer, journal, merge
from samplemind.settings import load_settings

_WATCHED = frozenset(str(module.__file__) for module in (dirty, indexer, journal, merge))


class _Killer:
    """Ends the process at the nth new line."""

    def __init__(self, number: int) -> None:
        self._left = number
        self._seen: set[tuple[str, int]] = set()

    def __call__(self, frame: FrameType, event: str, _: Any) -> "_Killer | None":
        place = (frame.f_code.co_filename, frame.f_lineno)
        if place[0] not in _WATCHED:
            return None
        if event == "line" and place not in self._seen:
            self._seen.add(place)
            self._left -= 1
            if self._left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


async def _drain() -> None:
    async with Connections(load_settings()) as connections:
        await indexer.drain(connections)


def _main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            sys.settrace(_Killer(int(line)))
            asyncio.run(_drain())
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        sys.stdout.write(f"{os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
