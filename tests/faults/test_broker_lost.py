"""Redis goes away in the middle of jobs and comes back; no job notices."""

import signal
from pathlib import Path

import pytest

from tests.worker.processes import SHORT_LEASES, Workshop, open_workshop, wait_until

pytestmark = pytest.mark.timeout(90)


def start_a_partly_busy_worker(workshop: Workshop, seconds: float) -> None:
    """One of two processes runs a job while the worker waits for the next message.

    That is when a stock worker dies of it: it has both an unacknowledged message to give back and
    a BRPOP on the connection that is gone.
    """
    workshop.start_workers(1)
    workshop.send("probes.work", "job", seconds)
    workshop.wait_for("job", "alive", seconds=10)


def test_a_job_that_ends_while_redis_restarts_is_acknowledged_afterwards(tmp_path: Path) -> None:
    with open_workshop(tmp_path, **SHORT_LEASES) as workshop:
        start_a_partly_busy_worker(workshop, 2.0)
        workshop.broker.stop(signal.SIGTERM)
        workshop.wait_for("job", "ended", seconds=10)
        workshop.broker.start()
        assert workshop.broker.unacknowledged() == 1

        workshop.wait_until_settled(seconds=15)
        workshop.send("probes.work", "next", 0.1)
        workshop.wait_for("next", "ended", seconds=15)
        assert workshop.count("job", "started") == 1
        assert workshop.workers[0].process.poll() is None


def test_a_job_that_outlives_a_killed_redis_runs_once(tmp_path: Path) -> None:
    with open_workshop(tmp_path, **SHORT_LEASES) as workshop:
        start_a_partly_busy_worker(workshop, 9.0)
        workshop.broker.stop(signal.SIGKILL)
        # Longer than a lease: when Redis is back, every lease has lapsed on paper.
        wait_until(
            lambda: workshop.workers[0].log.read_text().count("Cannot connect") >= 2,
            seconds=15,
            what="the worker looks for Redis",
        )
        workshop.broker.start()
        # A worker that is new must not judge the leases before their owners had time to renew.
        workshop.start_worker()
        workshop.wait_for("job", "ended", seconds=20)
        workshop.wait_until_settled(seconds=15)
        assert workshop.count("job", "started") == 1


def test_a_dropped_connection_gives_no_running_job_away(tmp_path: Path) -> None:
    with open_workshop(tmp_path, **SHORT_LEASES) as workshop:
        start_a_partly_busy_worker(workshop, 6.0)
        workshop.broker.client.client_kill_filter(_type="normal", skipme=True)
        workshop.send("probes.work", "next", 0.1)
        workshop.wait_for("next", "ended", seconds=15)
        workshop.wait_for("job", "ended", seconds=15)
        workshop.wait_until_settled(seconds=15)
        assert workshop.count("job", "started") == 1


def test_a_retry_that_cannot_be_published_is_not_lost(tmp_path: Path) -> None:
    with open_workshop(tmp_path, **SHORT_LEASES) as workshop:
        workshop.start_workers(1)
        workshop.send("probes.fail_transiently", "job", 1.0)
        workshop.wait_for("job", "started", seconds=10)
        workshop.broker.stop()
        log = workshop.workers[0].log
        wait_until(lambda: '"returned"' in log.read_text(), seconds=30, what="it gave up sending")

        workshop.broker.start()

        workshop.wait_for("job", "started", times=2, seconds=20)
        assert workshop.entries("job", "started")[1]["attempt"] == 1
