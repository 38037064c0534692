"""A worker that is told to leave lets short jobs end and gives long ones back at once."""

import signal
import time
from pathlib import Path

import pytest

from tests.worker.processes import SHORT_LEASES, open_workshop, wait_until

pytestmark = pytest.mark.timeout(60)


def test_a_leaving_worker_waits_for_jobs_that_end_in_time_and_no_longer(tmp_path: Path) -> None:
    with open_workshop(tmp_path, SAMPLEMIND_WORKER_DRAIN_S="20") as workshop:
        (worker,) = workshop.start_workers(1)
        workshop.send("probes.work", "short", 2.0)
        workshop.wait_for("short", "alive", seconds=10)

        worker.signal(signal.SIGTERM)
        told_at = time.monotonic()

        assert worker.wait(15) == 0
        assert time.monotonic() - told_at < 10
        assert workshop.count("short", "ended") == 1
        assert workshop.broker.unacknowledged() == 0
        assert workshop.broker.waiting("default") == 0


def test_a_leaving_worker_gives_unfinished_work_back_after_its_time(tmp_path: Path) -> None:
    with open_workshop(tmp_path, SAMPLEMIND_WORKER_DRAIN_S="1") as workshop:
        (worker,) = workshop.start_workers(1)
        for name in ("x", "y", "z"):
            workshop.send("probes.work", name, 30)
        for name in ("x", "y"):
            workshop.wait_for(name, "alive", seconds=10)
        children = worker.children()

        worker.signal(signal.SIGTERM)

        assert worker.wait(15) == 0
        assert not any(child.is_running() for child in children)
        # At once: no lease has to lapse for it.
        assert workshop.broker.waiting("default") == 3
        assert workshop.broker.unacknowledged() == 0

        # Nobody was killed by these jobs, so their next delivery counts as the first.
        workshop.start_workers(1)
        workshop.wait_for("x", "started", times=2, seconds=10)
        assert [entry["delivery"] for entry in workshop.entries("x", "started")] == [1, 1]


def test_a_second_signal_ends_the_waiting_and_loses_nothing(tmp_path: Path) -> None:
    with open_workshop(tmp_path, SAMPLEMIND_WORKER_DRAIN_S="60") as workshop:
        (worker,) = workshop.start_workers(1)
        workshop.send("probes.work", "long", 50)
        workshop.wait_for("long", "alive", seconds=10)

        for _ in range(3):
            worker.signal(signal.SIGTERM)
            time.sleep(0.05)  # signals that arrive together count as one

        assert worker.wait(15) == 0
        assert workshop.broker.waiting("default") == 1
        assert workshop.broker.unacknowledged() == 0


def test_a_worker_that_leaves_while_redis_is_away_loses_nothing(tmp_path: Path) -> None:
    with open_workshop(tmp_path, **SHORT_LEASES) as workshop:
        (worker,) = workshop.start_workers(1)
        workshop.send("probes.work", "job", 3.0)
        workshop.wait_for("job", "alive", seconds=10)
        children = worker.children()
        workshop.broker.stop()
        wait_until(
            lambda: "Cannot connect" in worker.log.read_text(), seconds=10, what="it has noticed"
        )

        worker.signal(signal.SIGTERM)

        assert worker.wait(15) == 0
        assert not any(child.is_running() for child in children)
        workshop.broker.start()
        workshop.start_workers(1)
        workshop.wait_for("job", "ended", seconds=20)
        assert workshop.count("job", "ended") == 1
