"""Jobs for the tests of the worker: each leaves what happened to it in a file of its own name.

A file outlives the broker, the worker and the process of the job, which the tests kill in turn.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from samplemind.errors import NotFoundError, StoreUnavailableError
from samplemind.jobs.cancellation import checkpoint
from samplemind.log import get_logger
from tasks.progress import Progress
from worker import deliveries, periodic, runtime
from worker.app import app
from worker.task import Job

_log = get_logger(__name__)

DIRECTORY_VARIABLE = "PROBE_DIRECTORY"


def record(name: str, event: str, **details: Any) -> None:
    entry = {"event": event, "pid": os.getpid(), "at": time.time(), **details}
    with (Path(os.environ[DIRECTORY_VARIABLE]) / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")


@app.task(base=Job, name="probes.work", bind=True)
def work(self: Job, name: str, seconds: float) -> None:
    """Keep the main thread busy, with a sign of life each 20 ms."""
    record(name, "started", delivery=deliveries.count(self))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        record(name, "alive")
        time.sleep(0.02)
    record(name, "ended")


class Recorded(Job):
    def on_give_up(self, name: str) -> None:
        if deliveries.count(self) == int(os.environ["SAMPLEMIND_WORKER_MAX_DELIVERIES"]) + 1:
            message = "the store of what was given up is away at first"
            raise StoreUnavailableError(message)
        record(name, "given_up")


@app.task(base=Recorded, name="probes.kill_own_process", bind=True)
def kill_own_process(self: Job, name: str) -> None:
    record(name, "started", delivery=deliveries.count(self))
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(base=Job, name="probes.sleep_on_loop", soft_time_limit=1, time_limit=20)
def sleep_on_loop(name: str) -> None:
    runtime.run(_sleep(name))


async def _sleep(name: str) -> None:
    record(name, "entered")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        record(name, "cancelled")
        await asyncio.sleep(0.3)
        record(name, "cleaned_up")
        raise


@app.task(base=Job, name="probes.look_at_loop")
def look_at_loop(name: str) -> None:
    runtime.run(_look(name))


async def _look(name: str) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    record(name, "looked", others=len(others), loop=id(asyncio.get_running_loop()))


class FastRetries(Job):
    retry_base_s = 0.01
    max_retries = 2


@app.task(base=FastRetries, name="probes.fail_transiently", bind=True)
def fail_transiently(self: Job, name: str, seconds: float = 0.0) -> None:
    record(name, "started", attempt=self.request.retries + 1)
    time.sleep(seconds)
    message = "the store is away"
    raise StoreUnavailableError(message)


@app.task(base=Job, name="probes.fail")
def fail(name: str) -> None:
    record(name, "started")
    message = "a fault that trying again does not mend"
    raise ValueError(message)


@app.task(base=Job, name="probes.slot", bind=True)
def run_slot(self: Job) -> None:
    """Note which slot ran, after as many seconds as the test asks for."""
    slot = periodic.slot_of(self)
    record("slot", "begin", slot=slot, parent=os.getppid())
    time.sleep(float(os.environ.get("PROBE_SLOT_SECONDS", "0")))
    record("slot", "run", slot=slot)


@app.task(base=Job, name="probes.answer", bind=True)
def answer(self: Job, name: str) -> dict[str, str]:
    record(name, "started")
    Progress(self).tell(3, 4)
    return {"answer": name}


@app.task(base=Job, name="probes.refuse")
def refuse(name: str) -> None:
    record(name, "started")
    message = f"{name} is not there"
    raise NotFoundError(message)


@app.task(base=Job, name="probes.loop")
def loop(name: str) -> None:
    """Work in steps and end between two of them."""
    record(name, "started")
    try:
        while True:
            time.sleep(0.02)
            checkpoint()
    finally:
        record(name, "ended")


@app.task(base=Job, name="probes.wait_on_loop")
def wait_on_loop(name: str) -> None:
    runtime.run(_sleep(name))


@app.task(base=Job, name="probes.stubborn")
def stubborn(name: str) -> None:
    """Never ask whether it was cancelled."""
    record(name, "started")
    time.sleep(60)
    record(name, "ended")


@app.task(base=Job, name="probes.overrun", soft_time_limit=1, time_limit=2)
def overrun(name: str) -> None:
    """Go on when the time is over."""
    record(name, "started")
    with contextlib.suppress(SoftTimeLimitExceeded):
        time.sleep(60)
    time.sleep(60)


@app.task(base=Job, name="probes.in_batch")
def in_batch(batch_id: str) -> None:
    """Say something on each of the threads that a job works with."""
    _log.info("in_the_job")
    runtime.run(_say_on_loop())


async def _say_on_loop() -> None:
    _log.info("on_the_loop")


@app.task(base=Job, name="probes.nothing")
def nothing(name: str) -> None:
    """Cost what the platform costs."""
