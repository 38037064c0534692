"""A worker that is killed with all its processes loses nothing and doubles nothing."""

import time
from pathlib import Path

import pytest

from tests.worker.processes import SHORT_LEASES, open_workshop

pytestmark = pytest.mark.timeout(90)


def test_a_killed_worker_is_recovered_within_half_a_minute(tmp_path: Path) -> None:
    with open_workshop(tmp_path) as workshop:  # with the leases that operators get
        doomed, other = workshop.start_workers(2)
        for name in ("a", "b", "c", "d"):
            workshop.send("probes.work", name, 2.0)
        for name in ("a", "b", "c", "d"):
            workshop.wait_for(name, "started", seconds=10)
        doomed_pids = {child.pid for child in doomed.children()}
        hit = [n for n in "abcd" if workshop.entries(n, "started")[0]["pid"] in doomed_pids]
        assert len(hit) == 2

        doomed.kill()
        killed_at = time.time()

        for name in hit:
            workshop.wait_for(name, "started", times=2, seconds=35)
            assert workshop.entries(name, "started")[1]["at"] - killed_at < 30
        for name in "abcd":
            workshop.wait_for(name, "ended", seconds=10)
        workshop.wait_until_settled()
        assert [workshop.count(name, "ended") for name in "abcd"] == [1, 1, 1, 1]
        assert [workshop.entries(name, "started")[-1]["delivery"] for name in hit] == [2, 2]
        assert other.process.poll() is None


def test_a_job_longer_than_two_leases_runs_once(tmp_path: Path) -> None:
    with open_workshop(tmp_path, **SHORT_LEASES) as workshop:
        workshop.start_workers(2, processes=1)
        workshop.send("probes.work", "long", 7.5)
        workshop.wait_for("long", "ended", seconds=20)
        workshop.wait_until_settled()
        assert workshop.count("long", "started") == 1


def test_children_of_a_killed_worker_die_at_once(tmp_path: Path) -> None:
    with open_workshop(tmp_path, **SHORT_LEASES) as workshop:
        (worker,) = workshop.start_workers(1)
        workshop.send("probes.work", "orphan", 30)
        workshop.wait_for("orphan", "alive", seconds=10)
        children = worker.children()

        worker.process.kill()  # the main process alone
        worker.wait(5)

        for child in children:
            child.wait(2)
        assert workshop.count("orphan", "ended") == 0
