"""Cancelling the job that this process runs: kindly at first, then by force.

A thread looks twice a second whether the running job was cancelled. If it was, the coroutine that
the job waits for is cancelled and its next checkpoint ends it. A job that does neither within
`worker.cancel_grace_s` is marked as cancelled and loses its process; its message comes back and is
refused, because its state has ended.

Invariant: what was cancelled does not run again, whatever is killed meanwhile; a job that ended
before the thread looked has ended as it did.
"""

import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis import Redis
from redis.exceptions import RedisError

from samplemind.jobs import cancellation
from samplemind.jobs.letters import INBOX
from samplemind.jobs.state import END, JobState, job_key
from samplemind.log import get_logger
from samplemind.settings import get_settings
from worker import runtime
from worker.broker import connect_broker

if TYPE_CHECKING:
    from worker.task import Job

_PACE_S = 0.5

_log = get_logger(__name__)


@dataclass(slots=True)
class _Run:
    """One run of one job."""

    job_id: str
    name: str
    cancelled_at: float | None = None


class Watcher:
    """Looks after the job of one process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._run: _Run | None = None
        self._lock = threading.Lock()
        self._client: Redis = connect_broker(get_settings().broker)
        threading.Thread(target=self._serve, name="cancellation", daemon=True).start()

    def watch(self, job: "Job") -> None:
        """Look after this job from now on."""
        cancellation.clear()
        self._run = _Run(job.request.id, job.name)

    def release(self) -> None:
        """Look after nothing; once this returns, the job is not interrupted any more."""
        with self._lock:
            self._run = None

    def _serve(self) -> None:
        while True:
            time.sleep(_PACE_S)
            run = self._run
            if run is not None:
                try:
                    self._look(run)
                except RedisError as error:
                    _log.info("cancellation_not_looked_up", error=str(error))

    def _look(self, run: _Run) -> None:
        if run.cancelled_at is None:
            if not self._client.hexists(job_key(run.job_id), "cancel"):
                return
            self._ask(run)
        elif time.monotonic() - run.cancelled_at > get_settings().worker.cancel_grace_s:
            self._force(run)

    def _ask(self, run: _Run) -> None:
        with self._lock:
            if self._run is not run:
                return
            run.cancelled_at = time.monotonic()
            _log.info("job_asked_to_stop", job=run.name, job_id=run.job_id)
            cancellation.request()
            runtime.interrupt()

    def _force(self, run: _Run) -> None:
        with self._lock:
            if self._run is not run:
                return
            error = "cancelled by force: it did not stop by itself"
            ended = (run.job_id, run.name, JobState.CANCELLED.value, error, "", INBOX)
            self._client.eval(END, 0, *ended)
            _log.warning("job_stopped_by_force", job=run.name, job_id=run.job_id)
            os.kill(os.getpid(), signal.SIGKILL)


_current: Watcher | None = None


def watcher() -> Watcher:
    """Return this process's watcher."""
    global _current
    if _current is None or _current.pid != os.getpid():
        _current = Watcher()
    return _current
