"""What the main process notes about jobs that end without the pool: late, or killed for time.

Invariant: as in a pool process, the end of a job is on its way to the broker before its message is
acknowledged.
"""

import time
from contextlib import AbstractContextManager
from typing import Any

import structlog
from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery.worker import state as worker_state
from celery.worker.request import Request

from samplemind.jobs.envelope import SENT_HEADER
from samplemind.jobs.letters import INBOX, DeathCause, encode_arguments
from samplemind.jobs.state import END, JobState
from samplemind.log import get_logger
from worker import dead_letters
from worker.headers import log_names, wait_before
from worker.ledger import Command
from worker.metrics import counting
from worker.metrics.counting import Outcome

_log = get_logger(__name__)


class JobRequest(Request):
    """A message that this worker took for a job."""

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Write about a job whose process is killed because its time is over."""
        with self._named():
            if not soft and not worker_state.should_terminate:
                self._tell(Outcome.TIMED_OUT)
                self._bury(f"TimeLimitExceeded: killed after {timeout} s")
            super().on_timeout(soft, timeout)

    def on_failure(self, exc_info: Any, *arguments: Any, **options: Any) -> Any:
        """Tell of a job whose process died; what becomes of it is Celery's and the settings'."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        with self._named():
            if isinstance(error, WorkerLostError) and not worker_state.should_terminate:
                self._tell(Outcome.PROCESS_LOST)
            return super().on_failure(exc_info, *arguments, **options)

    def maybe_expire(self) -> bool:
        """Note that a job came too late to start."""
        with self._named():
            expired = bool(super().maybe_expire())
            if expired:
                self._tell(Outcome.EXPIRED)
                error = "expired before it could start"
                dead_letters.post(self._end(JobState.CANCELLED, error, INBOX))
        return expired

    def _named(self) -> AbstractContextManager[None]:
        """Name the job on every line that is written about it, Celery's own too."""
        sender = self.request_dict.get("traceparent")
        names = log_names(str(self.name), str(self.id), dict(self.kwargs or {}), sender)
        return structlog.contextvars.bound_contextvars(**names)

    def _tell(self, outcome: Outcome) -> None:
        """Write the line of a run that could not write its own, and count it."""
        started, now = self.time_start, time.time()
        sent = self.request_dict.get(SENT_HEADER)
        # What expired was not started: it waited until now.
        waited = wait_before(started or now, sent, self.delivery_info)
        counting.ended(self.name, outcome)
        _log.warning(
            "job_ended",
            outcome=outcome.value,
            waited_s=None if waited is None else round(waited, 3),
            ran_s=None if started is None else round(max(0.0, now - started), 4),
            attempt=self._attempt,
        )

    @property
    def _attempt(self) -> int:
        return int(self.request_dict.get("retries") or 0) + 1

    def _bury(self, error: str) -> None:
        letter = dead_letters.letter_about(
            self.request_dict,
            encode_arguments(list(self.args), dict(self.kwargs)),
            DeathCause.TIMED_OUT,
            error,
            attempts=self._attempt,
            worker=str(self.hostname),
        )
        fields = [value for pair in letter.to_fields().items() for value in pair]
        dead_letters.post(self._end(JobState.DEAD, error, INBOX, *fields))

    def _end(self, state: JobState, error: str, *rest: Any) -> Command:
        return ("EVAL", END, 0, self.id, self.name, state.value, error, "", *rest)
