"""What the main process notes about jobs that end without the pool: late, or killed for time.

Invariant: as in a pool process, the end of a job is on its way to the broker before its message is
acknowledged.
"""

from typing import Any

from celery.worker import state as worker_state
from celery.worker.request import Request

from samplemind.jobs.letters import INBOX, DeathCause, encode_arguments
from samplemind.jobs.state import END, JobState
from worker import dead_letters
from worker.ledger import Command


class JobRequest(Request):
    """A message that this worker took for a job."""

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Write about a job whose process is killed because its time is over."""
        if not soft and not worker_state.should_terminate:
            error = f"TimeLimitExceeded: killed after {timeout} s"
            letter = dead_letters.letter_about(
                self.request_dict,
                encode_arguments(list(self.args), dict(self.kwargs)),
                DeathCause.TIMED_OUT,
                error,
                attempts=int(self.request_dict.get("retries") or 0) + 1,
                worker=str(self.hostname),
            )
            fields = [value for pair in letter.to_fields().items() for value in pair]
            dead_letters.post(self._end(JobState.DEAD, error, INBOX, *fields))
        super().on_timeout(soft, timeout)

    def maybe_expire(self) -> bool:
        """Note that a job came too late to start."""
        expired = bool(super().maybe_expire())
        if expired:
            dead_letters.post(self._end(JobState.CANCELLED, "expired before it could start", INBOX))
        return expired

    def _end(self, state: JobState, error: str, *rest: Any) -> Command:
        return ("EVAL", END, 0, self.id, self.name, state.value, error, "", *rest)
