"""What counts as a worker that works."""

import json
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from worker.health import STALLED_S, STUCK_S, Health, Vitals, judge_file, main, see

NOW = 1_000_000.0


def test_a_worker_is_stalled_if_messages_wait_beside_a_free_process() -> None:
    vitals = Vitals(NOW, connected=True)
    for second in range(0, 40, 5):
        vitals = see(vitals, waiting=3, free=1, taken=0, now=NOW + second)
    assert vitals.problem(NOW + STALLED_S) is None
    assert "3 messages wait" in (vitals.problem(NOW + STALLED_S + 1) or "")


@pytest.mark.parametrize(
    ("waiting", "free", "taken"), [(0, 1, 0), (3, 0, 0), (3, 1, 1)], ids=["idle", "busy", "taking"]
)
def test_a_worker_that_is_idle_busy_or_taking_is_well(waiting: int, free: int, taken: int) -> None:
    vitals = Vitals(NOW, connected=True)
    for look in range(20):
        now = NOW + 5 * look
        vitals = see(vitals, waiting=waiting, free=free, taken=taken * (look + 1), now=now)
    assert vitals.problem(now) is None


def test_a_loop_that_stopped_is_stuck_and_one_that_waits_for_the_broker_is_not() -> None:
    late = NOW + STUCK_S + 1
    assert Vitals(NOW, connected=True).is_stuck(late)
    assert not Vitals(NOW, connected=False).is_stuck(late)
    assert "broker" in (Vitals(NOW, connected=False).problem(late) or "")


def ask(address: str, path: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"{address}{path}", timeout=5) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error) if error.code != 404 else {}


def test_health_is_told_by_http_and_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    health = Health(path, "127.0.0.1", 0)
    assert health.address is not None
    assert ask(health.address, "/live")[0] == 200
    assert ask(health.address, "/ready")[0] == 503

    assert health.look(waiting=0, free=2, taken=0) is None
    assert ask(health.address, "/ready") == (200, ask(health.address, "/health")[1])
    assert main([str(path)]) == 0

    health.vitals = Vitals(time.time() - STUCK_S - 5, connected=True)
    status, told = ask(health.address, "/live")
    assert (status, told["ok"]) == (503, False)
    assert ask(health.address, "/nothing")[0] == 404
    health.disconnected()
    assert judge_file(path, time.time()) == "it has no connection to the broker"
    assert judge_file(path, time.time() + 60) is not None
    assert main([str(tmp_path / "none")]) == 1


def test_a_port_that_is_taken_costs_the_endpoint_and_not_the_worker(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        health = Health(tmp_path / "health.json", "127.0.0.1", other.getsockname()[1])
    assert health.address is None
    assert health.look(waiting=0, free=1, taken=0) is None
