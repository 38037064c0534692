"""A job that takes long, and says when it began and ended: for the benchmark of recovery."""

import os
import time
from pathlib import Path

from worker.app import app
from worker.task import Job

VARIABLE = "BENCH_PROBE"


@app.task(base=Job, name="bench.long", soft_time_limit=900, time_limit=960)
def work_long(seconds: float) -> None:
    """Keep a process busy."""
    _note("began")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)
    _note("ended")


def _note(event: str) -> None:
    with Path(os.environ[VARIABLE]).open("a") as file:
        file.write(f"{event} {time.time()}\n")
