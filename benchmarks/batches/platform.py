"""Stores and one worker of our own, with the benchmark's kinds, stopped at the end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.platform import samplemind, settings_of, temporary_home
from samplemind.settings import Settings

_READY_S = 60


class Worker:
    """One worker process with its children."""

    def __init__(self, home: Path, name: str, *, role: str = "index", processes: int = 2) -> None:
        self._log = home / "logs" / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "worker.main", role),
                    "--include=benchmarks.batches.noop,benchmarks.batches.probe",
                    f"--concurrency={processes}",
                    f"--hostname={role}@{name}",
                ],
                env={**os.environ, "SAMPLEMIND_HOME": str(home)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _READY_S
        while " ready." not in self._log.read_text():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, f"the worker is not ready: {self._log}"
            time.sleep(0.1)

    def memory_mib(self) -> dict[str, float]:
        """Return the resident memory of the main process and of each child."""
        main = psutil.Process(self._process.pid)
        sizes = {"main": main.memory_info().rss / 2**20}
        for number, child in enumerate(main.children()):
            sizes[f"child {number}"] = child.memory_info().rss / 2**20
        return sizes

    def kill(self) -> None:
        """Kill it with its children, as a host that goes away does."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)


@contextmanager
def stores() -> Iterator[tuple[Path, Settings]]:
    """Start the stores alone, in a home of their own."""
    with temporary_home() as home:
        samplemind("up", "--detach", "--stores-only", home=home)
        yield home, settings_of(home)
