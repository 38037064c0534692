"""A broker and workers as processes of their own, to be stopped, frozen and killed by tests."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import redis
from pydantic import SecretStr

from samplemind.embedded.binaries import server_binary
from samplemind.endpoints import Store
from samplemind.jobs.envelope import sent_headers
from samplemind.jobs.periodic import slot_headers, slot_job_id
from samplemind.jobs.publishing import producer
from samplemind.jobs.wire import queue_for
from samplemind.settings import BrokerSettings, Settings

REPOSITORY = Path(__file__).parents[2]
PROBES = "tests.worker.probes"

# The tests of recovery wait for leases, so they are as short as the settings allow, save where a
# test is about the ones that operators get.
SHORT_LEASES = {
    "SAMPLEMIND_BROKER_LEASE_S": "3",
    "SAMPLEMIND_BROKER_LEASE_RENEWAL_S": "1",
    "SAMPLEMIND_BROKER_SWEEP_S": "1",
}


def wait_until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class Broker:
    """A Valkey with an append-only file, on a port that it keeps across restarts."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.client = redis.Redis.from_url(self.url, decode_responses=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        return [
            str(server_binary(Store.BROKER)),
            *("--bind", "127.0.0.1", "--port", str(self._port), "--dir", str(self._directory)),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
        ]

    def start(self) -> None:
        self._process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        wait_until(self._answers, seconds=10, what="the broker answers")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(10)
            self._process = None

    def unacknowledged(self) -> int:
        return int(self.client.hlen("sm:unacked"))

    def waiting(self, queue: str) -> int:
        return int(self.client.llen(f"sm:{queue}"))

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False


class WorkerProcess:
    """A process of a role, started as the platform starts it."""

    def __init__(
        self,
        role: str,
        environment: dict[str, str],
        log: Path,
        *extra: str,
        module: str = "worker.main",
    ) -> None:
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, role, *extra],
                cwd=REPOSITORY,
                env={**os.environ, **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children()

    def wait_until_ready(self) -> None:
        wait_until(self._is_ready, seconds=90, what=f"the worker is ready; see {self.log}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it and its children at once, as a host that goes away does."""
        family = [psutil.Process(self.pid), *self.children()]
        for member in family:
            member.suspend()
        for member in family:
            member.kill()
        self.process.wait(10)

    def wait(self, seconds: float) -> int:
        return self.process.wait(seconds)

    def logged(self, event: str) -> bool:
        return f'"event": "{event}"' in self.log.read_text()

    def _is_ready(self) -> bool:
        text = self.log.read_text()
        assert self.process.poll() is None, text
        return " ready." in text


class Workshop:
    """One broker, its workers, and what the probes left."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.directory = directory
        self._broker_directory = directory / "broker"
        self._probe_directory = directory / "probes"
        for made in (self._broker_directory, self._probe_directory):
            made.mkdir()
        self.broker = Broker(self._broker_directory)
        self.workers: list[WorkerProcess] = []
        self.environment = {
            "SAMPLEMIND_HOME": str(directory / "home"),
            "SAMPLEMIND_BROKER_URL": self.broker.url,
            "SAMPLEMIND_CACHE_URL": self.broker.url,
            # The probes use neither; nothing connects before something is asked.
            "SAMPLEMIND_POSTGRES_URL": "postgresql://nobody@127.0.0.1:1/none",
            "SAMPLEMIND_MONGO_URL": "mongodb://127.0.0.1:1/",
            "SAMPLEMIND_LOG_FORMAT": "json",
            "PROBE_DIRECTORY": str(self._probe_directory),
            **environment,
        }
        broker = BrokerSettings(url=SecretStr(self.broker.url))
        self._producer = producer(Settings(home=directory / "home", broker=broker))

    def start_process(
        self, role: str, *arguments: str, module: str = "worker.main", **environment: str
    ) -> WorkerProcess:
        log = self.directory / f"{role}-{len(self.workers)}.log"
        process = WorkerProcess(
            role, self.environment | environment, log, *arguments, module=module
        )
        self.workers.append(process)
        return process

    def start_worker(self, *, role: str = "index", processes: int = 2) -> WorkerProcess:
        """Start a worker that knows the probes beside its own jobs."""
        return self.start_process(
            role,
            f"--include={PROBES}",
            f"--concurrency={processes}",
            f"--hostname={role}@{len(self.workers)}",
        )

    def start_workers(self, number: int, *, processes: int = 2) -> list[WorkerProcess]:
        workers = [self.start_worker(processes=processes) for _ in range(number)]
        for worker in workers:
            worker.wait_until_ready()
        return workers

    def send(self, job: str, *arguments: object) -> str:
        job_id = str(uuid4())
        queue = queue_for(job).value
        self._producer.send_task(job, args=arguments, task_id=job_id, queue=queue)
        return job_id

    def send_named(self, job: str, **arguments: object) -> str:
        """Send a job with named arguments, as producers do."""
        job_id = str(uuid4())
        queue = queue_for(job).value
        self._producer.send_task(
            job, kwargs=arguments, task_id=job_id, queue=queue, headers=sent_headers()
        )
        return job_id

    def send_slot(self, job: str, slot: str) -> None:
        """Send a periodic job as beat does: the same slot is the same job."""
        self._producer.send_task(
            job,
            task_id=str(slot_job_id(job, slot)),
            headers=slot_headers(slot),
            queue=queue_for(job).value,
        )

    def entries(self, name: str, event: str | None = None) -> list[dict[str, Any]]:
        """Return what the probe of that name recorded, in order."""
        path = self._probe_directory / f"{name}.jsonl"
        if not path.exists():
            return []
        # The last line of a process that was killed may be cut off.
        lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
        entries = [json.loads(line) for line in lines]
        return [entry for entry in entries if event in (None, entry["event"])]

    def count(self, name: str, event: str) -> int:
        return len(self.entries(name, event))

    def wait_for(self, name: str, event: str, *, seconds: float, times: int = 1) -> None:
        wait_until(
            lambda: self.count(name, event) >= times,
            seconds=seconds,
            what=f"{name} {event} {times} times",
        )

    def wait_until_settled(self, *, seconds: float = 10) -> None:
        wait_until(
            lambda: self.broker.unacknowledged() == 0 and self.broker.waiting("default") == 0,
            seconds=seconds,
            what="every message is acknowledged",
        )

    def close(self) -> None:
        self._producer.close()
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.signal(signal.SIGCONT)
                worker.kill()
        self.broker.client.close()
        self.broker.stop(signal.SIGKILL)


@contextmanager
def open_workshop(directory: Path, **environment: str) -> Iterator[Workshop]:
    """Start a broker; at the end stop it and every worker, whatever happened."""
    workshop = Workshop(directory, **environment)
    try:
        workshop.broker.start()
        yield workshop
    finally:
        workshop.close()
