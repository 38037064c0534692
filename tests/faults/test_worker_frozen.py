"""A worker that is frozen for longer than a lease wakes up to find its jobs given away."""

import signal
from pathlib import Path

import pytest

from tests.worker.processes import SHORT_LEASES, open_workshop, wait_until


@pytest.mark.timeout(60)
def test_the_acknowledgement_of_a_woken_worker_does_not_take_the_message_from_its_new_holder(
    tmp_path: Path,
) -> None:
    with open_workshop(tmp_path, **SHORT_LEASES) as workshop:
        frozen, other = workshop.start_workers(2, processes=1)
        # It outlasts the lease that lapses: a job that has succeeded would not run again.
        workshop.send("probes.work", "job", 9.0)
        workshop.wait_for("job", "alive", seconds=10, times=60)  # one renewal at least
        if workshop.entries("job", "started")[0]["pid"] in {c.pid for c in other.children()}:
            frozen, other = other, frozen
        frozen.signal(signal.SIGSTOP)  # its child goes on and ends the job
        workshop.wait_for("job", "started", times=2, seconds=15)
        workshop.wait_for("job", "ended", seconds=15)

        frozen.signal(signal.SIGCONT)
        wait_until(
            lambda: frozen.logged("leases_lapsed"), seconds=10, what="it says that it was frozen"
        )

        # The second run goes on under its own lease, and its death still brings the message back;
        # the job has succeeded by then, and is not run a third time.
        assert workshop.count("job", "ended") == 1
        assert workshop.broker.unacknowledged() == 1
        other.kill()
        workshop.wait_until_settled(seconds=15)
        assert workshop.count("job", "started") == 2
