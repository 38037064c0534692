"""A broker of the benchmark's own, and workers that drain its queue."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import redis

from samplemind.embedded.binaries import server_binary
from samplemind.endpoints import Store

_PATIENCE_S = 180
_WARM = 0.9
"""Share of the queue that is left when the clock starts: the worker and its processes are up."""


@contextmanager
def broker() -> Iterator[tuple[str, "redis.Redis"]]:
    """Yield the URL of an empty Valkey with an append-only file, and a client."""
    with socket.socket() as probe, TemporaryDirectory(prefix="samplemind-bench-") as directory:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        process = subprocess.Popen(
            [
                str(server_binary(Store.BROKER)),
                *("--bind", "127.0.0.1", "--port", str(port), "--dir", directory),
                *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            ],
            stdout=subprocess.DEVNULL,
        )
        client = redis.Redis(port=port)
        try:
            _wait_for(client)
            yield f"redis://127.0.0.1:{port}/0", client
        finally:
            client.close()
            process.terminate()
            process.wait(10)


def drain(
    command: Sequence[str],
    client: "redis.Redis",
    queue: str,
    unacked: str,
    *,
    url: str,
    home: Path,
    environment: Mapping[str, str] | None = None,
    then: Callable[[], None] | None = None,
) -> float:
    """Start a worker on a full queue; return jobs a second from when it is warm to the end.

    Args:
        environment: further variables for the worker.
        then: called when the queue is empty, while the worker still runs.
    """
    total = int(client.llen(queue))  # type: ignore[arg-type]
    warm = int(total * _WARM)
    with (home / "worker.log").open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", *command],
            env={
                **os.environ,
                "SAMPLEMIND_BROKER_URL": url,
                "SAMPLEMIND_CACHE_URL": url,
                "SAMPLEMIND_POSTGRES_URL": "postgresql://nobody@127.0.0.1:1/none",
                "SAMPLEMIND_MONGO_URL": "mongodb://127.0.0.1:1/",
                "SAMPLEMIND_HOME": str(home),
                **(environment or {}),
            },
            stdout=log,
            stderr=log,
        )
        try:
            _wait_until(client, queue, unacked, warm)
            left = int(client.llen(queue))  # type: ignore[arg-type]
            started = time.perf_counter()
            _wait_until(client, queue, unacked, 0)
            rate = left / (time.perf_counter() - started)
            if then is not None:
                then()
            return rate
        finally:
            worker.terminate()
            worker.wait(60)


def _wait_until(client: "redis.Redis", queue: str, unacked: str, left: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        waiting, taken = int(client.llen(queue)), int(client.hlen(unacked))  # type: ignore[arg-type]
        if waiting <= left and (left or not taken):
            return
        if time.monotonic() > deadline:
            message = f"the worker left {waiting} jobs after {_PATIENCE_S} s"
            raise TimeoutError(message)
        time.sleep(0.02)


def _wait_for(client: "redis.Redis") -> None:
    for _ in range(500):
        try:
            client.ping()
        except redis.ConnectionError:
            time.sleep(0.02)
        else:
            return
    client.ping()
