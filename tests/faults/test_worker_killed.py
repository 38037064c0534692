"""A worker that is killed with all its processes loses nothing and doubles nothing."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.worker.processes import SHORT_LEASES, WorkerProcess, Workshop, open_workshop

pytestmark = pytest.mark.timeout(90)

JOBS = ("a", "b", "c", "d")


@dataclass(frozen=True)
class Disaster:
    """Two workers had two jobs each when one of them was killed."""

    workshop: Workshop
    survivor: WorkerProcess
    hit: tuple[str, ...]
    killed_at: float


@pytest.fixture(scope="module", autouse=True)
def disaster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disaster]:
    """Happens first, so that its leases lapse while the other tests run."""
    with open_workshop(tmp_path_factory.mktemp("disaster")) as workshop:  # leases as operators get
        doomed, survivor = workshop.start_workers(2)
        for name in JOBS:
            workshop.send("probes.work", name, 2.0)
        for name in JOBS:
            workshop.wait_for(name, "started", seconds=10)
        doomed_pids = {child.pid for child in doomed.children()}
        hit = tuple(n for n in JOBS if workshop.entries(n, "started")[0]["pid"] in doomed_pids)
        doomed.kill()
        yield Disaster(workshop, survivor, hit, time.time())


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


def test_the_jobs_of_a_killed_worker_run_elsewhere_within_half_a_minute(disaster: Disaster) -> None:
    workshop = disaster.workshop
    assert len(disaster.hit) == 2
    for name in disaster.hit:
        workshop.wait_for(name, "started", times=2, seconds=35)
        again = workshop.entries(name, "started")[1]
        assert again["at"] - disaster.killed_at < 30
        assert again["delivery"] == 2
    for name in JOBS:
        workshop.wait_for(name, "ended", seconds=10)
    workshop.wait_until_settled()
    assert [workshop.count(name, "ended") for name in JOBS] == [1, 1, 1, 1]
    assert disaster.survivor.process.poll() is None
