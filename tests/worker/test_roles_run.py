"""The roles beside the workers: the clock that sends periodic jobs, and the operators' console."""

import base64
import json
import signal
import socket
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from samplemind.jobs.wire import heartbeat_key
from tests.worker.processes import WorkerProcess, Workshop, open_workshop, wait_until

pytestmark = pytest.mark.timeout(60)

PASSWORD = "correct horse"


@dataclass(frozen=True)
class Cast:
    workshop: Workshop
    beat: WorkerProcess
    open_console: WorkerProcess
    locked_console: WorkerProcess


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cast]:
    """All three start at once, because each takes its time."""
    directory = tmp_path_factory.mktemp("roles")
    with open_workshop(directory) as workshop:
        yield Cast(
            workshop,
            workshop.start_process("beat", SAMPLEMIND_HOME=str(directory / "beat")),
            workshop.start_process("console", SAMPLEMIND_HOME=str(directory / "open")),
            workshop.start_process(
                "console",
                SAMPLEMIND_HOME=str(directory / "locked"),
                SAMPLEMIND_CONSOLE_BASIC_AUTH=f"ada:{PASSWORD}",
            ),
        )


def test_a_console_with_a_password_lets_nobody_else_in(cast: Cast) -> None:
    address = await_console(cast.locked_console)
    assert answer(f"{address}/workers") == 401
    assert answer(f"{address}/workers", user="ada:wrong") == 401
    assert answer(f"{address}/workers", user=f"ada:{PASSWORD}") == 200
    command = Path(f"/proc/{cast.locked_console.pid}/cmdline").read_text()
    assert PASSWORD not in command


def test_a_console_without_a_password_shows_and_does_nothing(cast: Cast) -> None:
    address = await_console(cast.open_console)
    send = f"{address}/api/task/async-apply/probes.work"
    assert answer(f"{address}/workers") == 200
    assert answer(send, method="POST") in (401, 403)
    assert cast.workshop.broker.waiting("default") == 0


def test_beat_sends_what_is_due_and_leaves_a_sign_of_life(cast: Cast) -> None:
    redis = cast.workshop.broker.client
    key = heartbeat_key("beat", socket.gethostname(), cast.beat.pid)
    wait_until(lambda: redis.exists(key) == 1, seconds=30, what="beat beats")
    assert json.loads(redis.get(key) or "{}")["pid"] == cast.beat.pid
    # The index is drained every few seconds.
    wait_until(lambda: cast.workshop.broker.waiting("index") > 0, seconds=30, what="a job is sent")


def test_what_a_process_leaves_is_for_its_owner_only(cast: Cast) -> None:
    await_console(cast.open_console)
    run = cast.workshop.directory / "open" / "run"
    assert stat.S_IMODE(run.stat().st_mode) == 0o700


def test_each_of_them_leaves_when_it_is_told_to(cast: Cast) -> None:
    await_console(cast.open_console)
    for process in (cast.beat, cast.open_console):
        process.signal(signal.SIGTERM)
    assert [process.wait(15) for process in (cast.beat, cast.open_console)] == [0, 0]


def answer(address: str, *, method: str = "GET", user: str | None = None) -> int:
    request = urllib.request.Request(address, method=method)  # noqa: S310 - our own address
    if user is not None:
        token = base64.b64encode(user.encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def await_console(process: WorkerProcess) -> str:
    """Return the address of a console once it answers."""
    wait_until(lambda: process.logged("console_ready"), seconds=30, what="the console is ready")
    lines = [line for line in process.log.read_text().splitlines() if "console_ready" in line]
    address = f"http://127.0.0.1:{json.loads(lines[0])['port']}"
    wait_until(lambda: answers(address), seconds=15, what="the console answers")
    return address


def answers(address: str) -> bool:
    try:
        return answer(f"{address}/healthcheck") == 200
    except urllib.error.URLError:
        return False
