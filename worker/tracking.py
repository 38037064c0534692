"""The state of the jobs that this process runs, kept in the broker: one call at start, one at end.

Invariant: a job does not return before its end is written, so its message cannot leave the broker
while its state says that it runs. Where Redis is away the job waits for it: its lease holds, and
there is nothing else to do meanwhile. Housekeeping that comes again by itself is not tracked.
"""

import os
import time
import traceback
from typing import TYPE_CHECKING

from billiard.exceptions import SoftTimeLimitExceeded
from redis import Redis
from redis.commands.core import Script
from redis.exceptions import RedisError

from samplemind.connections.redis import translating_errors
from samplemind.jobs.envelope import TRACKED_HEADER
from samplemind.jobs.letters import INBOX, DeathCause, Letter, encode_arguments
from samplemind.jobs.payloads import payload_of
from samplemind.jobs.state import BEGIN, END, PROGRESS, JobState, encode_result
from samplemind.log import get_logger
from samplemind.settings import get_settings
from worker import deliveries
from worker.broker import connect_broker
from worker.dead_letters import letter_about

if TYPE_CHECKING:
    from worker.task import Job

_PAUSE_S = 0.5
_RESULT_LENGTH = 64_000
"""Characters of a result that is kept; what is larger belongs into a store."""

_log = get_logger(__name__)


class _Broker:
    """This process's client for states, beside those of its event loop."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.client: Redis = connect_broker(get_settings().broker)
        self.begin: Script = self.client.register_script(BEGIN)
        self.end: Script = self.client.register_script(END)


_current: _Broker | None = None


def is_tracked(job: "Job") -> bool:
    """Return whether the job's state is kept."""
    payload = payload_of(job.name)
    return not (payload and payload.housekeeping) or TRACKED_HEADER in (job.request.headers or {})


def begin(job: "Job") -> JobState | None:
    """Note that the job starts; return the ended state that forbids it, if there is one.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """
    if not is_tracked(job):
        return None
    redelivered = int(deliveries.was_redelivered(job.request.delivery_info))
    arguments = [job.request.id, job.name, str(job.request.hostname), redelivered]
    with translating_errors():
        verdict = _broker().begin(args=arguments)
    return None if verdict == b"run" else JobState(verdict.decode())


def succeed(job: "Job", result: object) -> None:
    """Note that the job did its work."""
    if is_tracked(job):
        kept = encode_result(result)
        if len(kept) > _RESULT_LENGTH:
            _log.warning("result_not_kept", characters=len(kept))
            kept = ""
        _end_surely(job, JobState.SUCCEEDED, result=kept)


def cancel(job: "Job") -> None:
    """Note that the job was cancelled."""
    _end_surely(job, JobState.CANCELLED, error="cancelled while it ran")


def retry(job: "Job", error: BaseException) -> None:
    """Note that the job will be tried again; without Redis it only looks as if it still ran."""
    if not is_tracked(job):
        return
    try:
        _end(job, JobState.RETRYING, error=_describe(error))
    except RedisError as problem:
        _log.info("retry_not_told", error=str(problem))


def bury(job: "Job", state: JobState, cause: DeathCause, error: BaseException) -> None:
    """Note that the job will not run again, with a dead letter in the same step."""
    _end_surely(job, state, error=_describe(error), letter=_letter(job, cause, error))


def tell_progress(job_id: str, progress: str) -> None:
    """Store how far a job is.

    Raises:
        RedisError: Redis did not answer.
    """
    _broker().client.eval(PROGRESS, 0, job_id, progress)


def _end_surely(
    job: "Job",
    state: JobState,
    *,
    error: str = "",
    result: str = "",
    letter: Letter | None = None,
) -> None:
    while True:
        try:
            _end(job, state, error=error, result=result, letter=letter)
        except RedisError as problem:
            _log.warning("end_not_told", state=state.value, error=str(problem))
            _pause()
        except SoftTimeLimitExceeded:
            # The work is done; the time limit that kills comes if Redis stays away.
            continue
        else:
            return


def _pause() -> None:
    try:
        time.sleep(_PAUSE_S)
    except SoftTimeLimitExceeded:
        return


def _end(
    job: "Job", state: JobState, *, error: str = "", result: str = "", letter: Letter | None = None
) -> None:
    fields = [value for pair in (letter.to_fields() if letter else {}).items() for value in pair]
    if is_tracked(job):
        arguments = [job.request.id, job.name, state.value, error, result, INBOX, *fields]
        _broker().end(args=arguments)
    elif letter:
        _broker().client.xadd(INBOX, letter.to_fields())  # type: ignore[arg-type]


def _letter(job: "Job", cause: DeathCause, error: BaseException) -> Letter:
    request = job.request
    return letter_about(
        {**(request.headers or {}), "id": request.id, "task": job.name},
        encode_arguments(list(request.args), dict(request.kwargs)),
        cause,
        _describe(error),
        traceback="".join(traceback.format_exception(error)),
        attempts=request.retries + deliveries.count(job),
        worker=str(request.hostname),
    )


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _broker() -> _Broker:
    global _current
    if _current is None or _current.pid != os.getpid():
        _current = _Broker()
    return _current
