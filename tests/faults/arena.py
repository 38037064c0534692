"""A whole platform, as `samplemind up` starts it, in which a test kills whatever it likes.

The supervisor starts again what died, as it does for operators, so a trial only has to hit. A
second audio worker stands beside the supervised one: what a frozen worker held goes to it.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import soundfile

from samplemind.embedded.home import StackHome
from samplemind.embedded.platform import living_supervisor
from samplemind.endpoints import read_endpoints
from samplemind.settings import Settings, load_settings
from tests.worker.processes import REPOSITORY, SHORT_LEASES, WorkerProcess, wait_until

RATE_HZ = 44_100
REFUSED = ("empty.wav", "words.wav")
FROZEN_S = 1.5 * float(SHORT_LEASES["SAMPLEMIND_BROKER_LEASE_S"])

# Short waits, so that a trial is over in seconds; and a limit, so that its places are at stake too.
ENVIRONMENT = {
    **SHORT_LEASES,
    "SAMPLEMIND_LOG_FORMAT": "json",
    "SAMPLEMIND_MONGO_TIMEOUT_MS": "2000",
    "SAMPLEMIND_BATCH_CLAIM_S": "6",
    "SAMPLEMIND_BATCH_CHUNK_SIZE": "8",
    "SAMPLEMIND_LIMITS_RUNNING": "3",
    "SAMPLEMIND_WORKER_AUDIO_CONCURRENCY": "1",
}


class Arena:
    """The platform in a home of its own."""

    def __init__(self, home: Path) -> None:
        self._home = StackHome(home)
        self._path = home
        self._environment = {**os.environ, **ENVIRONMENT, "SAMPLEMIND_HOME": str(home)}
        self._second: WorkerProcess | None = None

    @property
    def settings(self) -> Settings:
        """Settings with the addresses of the stores."""
        settings = load_settings().model_copy(update={"home": self._path})
        return settings.with_urls(read_endpoints(self._path))

    def start(self) -> None:
        self._samplemind("up", "--detach")
        self._start_second()

    def stop(self) -> None:
        if self._second is not None and self._second.process.poll() is None:
            self._second.signal(signal.SIGCONT)
            self._second.kill()
        self._samplemind("down")

    def strike(self, fault: str, chance: random.Random) -> None:
        """Do one of `FAULTS`."""
        FAULTS[fault](self, chance)

    def kill(self, name: str) -> None:
        """Kill a process of the stack with its children, as a host that goes away does."""
        pid = self._pid(name)
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        for member in family:
            _signal(member, signal.SIGSTOP)
        for member in family:
            _signal(member, signal.SIGKILL)
        psutil.wait_procs(family, timeout=5)

    def kill_child(self, chance: random.Random) -> None:
        children = psutil.Process(self._pid("audio")).children()
        if children:
            _signal(chance.choice(children), signal.SIGKILL)

    def kill_server(self, name: str) -> None:
        """Kill the main process of a store; PostgreSQL's children end by themselves."""
        psutil.Process(self._pid(name)).kill()

    def kill_workers(self) -> None:
        for name in ("audio", "index"):
            self.kill(name)
        if self._second is not None:
            self._second.kill()
        self._start_second()

    def freeze(self) -> None:
        """Stop the second worker until after its leases have ended, then let it go on."""
        assert self._second is not None
        family = [psutil.Process(self._second.pid), *self._second.children()]
        for member in family:
            _signal(member, signal.SIGSTOP)
        time.sleep(FROZEN_S)  # the time is the fault
        for member in family:
            _signal(member, signal.SIGCONT)

    @contextmanager
    def broker_away(self) -> Iterator[None]:
        """Kill the broker, and have nobody start it again as long as the block lasts."""
        record = living_supervisor(self._home)
        assert record is not None
        supervisor = record.pid
        broker = psutil.Process(self._pid("broker"))
        os.kill(supervisor, signal.SIGSTOP)
        try:
            broker.kill()
            yield
        finally:
            os.kill(supervisor, signal.SIGCONT)

    def worker_pids(self) -> list[int]:
        """Return the main processes of the workers."""
        assert self._second is not None
        assert self._second.process.poll() is None
        return [self._pid("audio"), self._pid("index"), self._second.pid]

    def _pid(self, name: str) -> int:
        wait_until(
            lambda: self._home.process(name).is_alive(), seconds=30, what=f"{name} runs (again)"
        )
        record = self._home.process(name).record
        assert record is not None
        return record.pid

    def _start_second(self) -> None:
        self._second = WorkerProcess(
            "audio",
            {**self._environment},
            self._path / "logs" / "second.log",
            "--concurrency=1",
            "--hostname=audio@second",
        )

    def _samplemind(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "samplemind", *arguments],
            cwd=REPOSITORY,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return  # it ended by itself meanwhile


FAULTS: dict[str, Callable[[Arena, random.Random], None]] = {
    "child": Arena.kill_child,
    "worker": lambda arena, _: arena.kill("audio"),
    "all workers": lambda arena, _: arena.kill_workers(),
    "index worker": lambda arena, _: arena.kill("index"),
    "beat": lambda arena, _: arena.kill("beat"),
    "broker": lambda arena, _: arena.kill_server("broker"),
    "postgres": lambda arena, _: arena.kill_server("postgres"),
    "mongo": lambda arena, _: arena.kill_server("mongo"),
    "frozen worker": lambda arena, _: arena.freeze(),
}
"""What may happen to a platform in the middle of its work."""


@contextmanager
def open_arena(home: Path) -> Iterator[Arena]:
    """Start a platform; stop it at the end, whatever happened."""
    arena = Arena(home)
    try:
        arena.start()
        yield arena
    finally:
        arena.stop()


def write_samples(folder: Path, count: int, seed: int) -> list[Path]:
    """Write sounds, each another, and some that are refused."""
    folder.mkdir(parents=True)
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    chance = np.random.default_rng(seed)
    for number in range(count):
        tone = np.sin(2 * np.pi * chance.uniform(60, 2000) * time_s)
        beat = np.exp(-8 * (time_s % 0.5))
        sound = 0.4 * beat * (tone + 0.1 * chance.standard_normal(len(time_s)))
        soundfile.write(folder / f"loop_{number:03}.wav", sound, RATE_HZ, subtype="PCM_16")
    (folder / "empty.wav").touch()
    (folder / "words.wav").write_text(f"no sound at all, only words, of {seed}\n" * 9)
    return sorted(folder.iterdir())
