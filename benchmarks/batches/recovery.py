"""How soon the job of a killed worker runs elsewhere, and that a long one runs once meanwhile.

`BENCH_LONG_S=300` in the environment makes the long job one of five minutes.
"""

import os
import time
from pathlib import Path

from benchmarks.batches.platform import Worker, stores
from benchmarks.batches.probe import VARIABLE
from benchmarks.row import Row, row
from samplemind.jobs.publishing import producer

GOAL_S = 30.0
LONG_S = float(os.environ.get("BENCH_LONG_S", "40"))


def recovery_rows() -> list[Row]:
    """Kill a worker in the middle of a job, which then runs much longer than a lease."""
    with stores() as (home, settings):
        trace = home / "probe"
        trace.touch()
        os.environ[VARIABLE] = str(trace)
        doomed = Worker(home, "doomed", processes=1)
        workers = [doomed]
        try:
            with producer(settings) as app:
                app.send_task("bench.long", args=(LONG_S,), queue="default")
                _await(trace, "began", 1, 30)
                workers.append(Worker(home, "other", processes=1))
                doomed.kill()
                killed_at = time.time()
                seconds = _await(trace, "began", 2, 120) - killed_at
                _await(trace, "ended", 1, LONG_S + 60)
            runs = len(_events(trace, "began")) - 1  # without the one that was killed
        finally:
            for worker in workers:
                worker.kill()
    return [
        row(
            "recovery of a job after kill -9 of its worker",
            seconds,
            "s",
            goal=f"≤ {GOAL_S:g}",
            met=seconds <= GOAL_S,
        ),
        row(
            f"runs of a job of {LONG_S:g} s under leases of {settings.broker.lease_s} s",
            runs,
            "runs",
            goal="1",
            met=runs == 1,
        ),
    ]


def _await(trace: Path, event: str, times: int, seconds: float) -> float:
    deadline = time.monotonic() + seconds
    while len(found := _events(trace, event)) < times:
        assert time.monotonic() < deadline, f"{event} {times} times, not within {seconds} s"
        time.sleep(0.05)
    return found[times - 1]


def _events(trace: Path, event: str) -> list[float]:
    lines = [line.split() for line in trace.read_text().splitlines()]
    return [float(at) for name, at in lines if name == event]
