"""For each phase on stdin, a process that rebuilds and kills itself when it gets there.

The processes are forked from one that has loaded everything, which opens no connection itself.
"""

import asyncio
import os
import signal
import sys

from samplemind.connections.resources import Connections
from samplemind.search.rebuild import RebuildPhase, rebuild_index
from samplemind.settings import load_settings


async def _rebuild(phase: RebuildPhase) -> None:
    def progress(reached: RebuildPhase, _files: int) -> None:
        if reached == phase:
            os.kill(os.getpid(), signal.SIGKILL)

    async with Connections(load_settings()) as connections:
        await rebuild_index(connections, progress=progress)


def _main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            asyncio.run(_rebuild(RebuildPhase(line.strip())))
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        sys.stdout.write(f"{os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
