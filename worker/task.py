"""The base of every job: what is tried again, how often, and the one line it leaves in the log.

Invariant: exactly `TransientError` is tried again, after a delay that grows and is random, so that
jobs which failed together do not come back together. Every other error ends the job.
"""

import asyncio
import random
import time
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NoReturn

import structlog
from celery import Task
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded

from samplemind.errors import (
    InvalidInputError,
    JobCancelledError,
    PermanentError,
    TransientError,
)
from samplemind.jobs import cancellation
from samplemind.jobs.letters import DeathCause
from samplemind.jobs.payloads import payload_of
from samplemind.jobs.state import JobState
from samplemind.jobs.wire import queue_for
from samplemind.log import get_logger
from samplemind.tracing import Role, Span, current_trace_id, span
from worker import deliveries, periodic, runtime, tracking
from worker.cancellation import watcher
from worker.dead_letters import schema_version
from worker.headers import header, log_names, waited_s
from worker.metrics import counting
from worker.metrics.counting import Outcome

_VERDICTS = {Ignore: Outcome.REFUSED, Reject: Outcome.REJECTED, Retry: Outcome.RETRIED}

_log = get_logger(__name__)


def retry_delay(retries: int, *, base_s: float, cap_s: float) -> float:
    """Return seconds until the next attempt: random between zero and a bound that doubles.

    Full jitter spreads the attempts best (Brooker, "Exponential Backoff And Jitter", 2015).
    """
    bound: float = min(cap_s, base_s * 2.0 ** min(retries, 32))
    return random.uniform(0.0, bound)  # noqa: S311


class InvalidPayloadError(PermanentError):
    """The message carries what the job does not take."""


class Job(Task):
    """A job: `@app.task(base=Job, name="area.verb_object")`, with `bind=True` where it asks for
    its own request.
    """

    Request = "worker.request:JobRequest"
    throws = (PermanentError,)
    """Errors that are the job's answer: logged in its line, without a traceback."""
    max_retries = 8
    """Attempts after the first, each after a `TransientError`; overridden by job."""
    retry_base_s: ClassVar[float] = 1.0
    """Seconds that bound the first delay."""
    retry_cap_s: ClassVar[float] = 60.0
    """Seconds that bound every delay: the last of 8 retries starts after three minutes at most."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the job as the worker does, or plainly where it is called as a function."""
        if self.request.called_directly:
            return self.run(*args, **kwargs)
        waited = waited_s(self)
        if waited is not None and not self.request.retries:
            counting.waited(self.name, waited)
        with self._step() as step, structlog.contextvars.bound_contextvars(**self._names(kwargs)):
            line = _Line(self.name, step, attempt=self.request.retries + 1, waited_s=waited)
            try:
                return self._run_tracked(args, kwargs, line)
            except (Ignore, Reject, Retry) as verdict:
                line.write(_VERDICTS[type(verdict)])
                raise
            finally:
                deliveries.settle(self)
                counting.take_pool(runtime.pool_counts)

    def _step(self) -> AbstractContextManager[Span]:
        """Return the job's step in the trace of whoever sent it."""
        request = self.request
        return span(
            f"job {self.name}",
            Role.CONSUMER,
            {
                "messaging.system": "redis",
                "messaging.operation.type": "process",
                "messaging.destination.name": queue_for(self.name).value,
                "messaging.message.id": str(request.id),
            },
            sender={**(request.headers or {}), "traceparent": header(self, "traceparent")},
        )

    def _names(self, kwargs: dict[str, Any]) -> dict[str, str]:
        """Return what every line in the log names while the job runs."""
        names = log_names(self.name, str(self.request.id), kwargs, header(self, "traceparent"))
        trace_id = current_trace_id()
        return names if trace_id is None else {**names, "trace_id": trace_id}

    def _run_tracked(self, args: Any, kwargs: dict[str, Any], line: "_Line") -> Any:
        """Run the job if its state allows it, and note how it ends before it returns."""
        try:
            self._admit()
            result = self._run_watched(args, self._read_payload(args, kwargs))
        except TransientError as error:
            self._try_again(error, line)
        except (JobCancelledError, asyncio.CancelledError) as error:
            if not cancellation.is_requested():
                self._note_death(error, line, JobState.DEAD, DeathCause.FAILED)
                raise
            tracking.cancel(self)
            line.write(Outcome.CANCELLED)
            message = "cancelled"
            raise Ignore(message) from None
        except InvalidPayloadError as error:
            self._note_death(error, line, JobState.DEAD, DeathCause.INVALID_PAYLOAD)
            raise
        except deliveries.GivenUpError as error:
            self._note_death(error, line, JobState.DEAD, DeathCause.GIVEN_UP)
            raise
        except PermanentError as error:
            self._note_death(error, line, JobState.FAILED, DeathCause.FAILED)
            raise
        except SoftTimeLimitExceeded as error:
            self._note_death(error, line, JobState.DEAD, DeathCause.TIMED_OUT)
            raise
        except (Ignore, Reject, Retry):
            raise
        except Exception as error:
            self._note_death(error, line, JobState.DEAD, DeathCause.FAILED)
            raise
        tracking.succeed(self, result)
        line.write(Outcome.SUCCEEDED)
        return result

    def _admit(self) -> None:
        ended = tracking.begin(self)
        if ended is not None:
            message = f"not run: it is {ended.value} already"
            raise Ignore(message)
        deliveries.admit(self)

    def _read_payload(self, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the job's arguments as this code's version of its payload has them."""
        payload = payload_of(self.name)
        if payload is None:
            return kwargs
        if args:
            message = f"{self.name} takes named arguments only"
            raise InvalidPayloadError(message)
        version = schema_version(self.request.headers or {})
        try:
            read = payload.read(kwargs, version)
        except InvalidInputError as error:
            raise InvalidPayloadError(str(error)) from error
        return kwargs if version == payload.schema_version else read.model_dump(mode="json")

    def _run_watched(self, args: Any, kwargs: dict[str, Any]) -> Any:
        if not tracking.is_tracked(self):
            return periodic.execute(self, args, kwargs)
        watching = watcher()
        watching.watch(self)
        try:
            return periodic.execute(self, args, kwargs)
        finally:
            watching.release()

    def _note_death(
        self, error: BaseException, line: "_Line", state: JobState, cause: DeathCause
    ) -> None:
        tracking.bury(self, state, cause, error)
        line.write(Outcome.FAILED, error)

    def on_give_up(self, *args: Any, **kwargs: Any) -> None:
        """Called with the job's arguments when it is given up for killing its workers.

        A job that stands for something in a store overrides this to mark that as failed; it may
        use `worker.runtime`. After a `TransientError` it is called again; the job is not.
        """

    def _try_again(self, error: TransientError, line: "_Line") -> NoReturn:
        tracking.retry(self, error)
        delay = retry_delay(self.request.retries, base_s=self.retry_base_s, cap_s=self.retry_cap_s)
        try:
            self.retry(exc=error, countdown=delay)
        except Retry:
            line.write(Outcome.RETRIED, error)
            raise
        except Reject as verdict:
            # Celery rejects the message for good where the next attempt could not be published;
            # here it stays in the broker and is delivered again.
            line.write(Outcome.RETURNED, error)
            raise Reject(verdict.reason, requeue=True) from error
        except TransientError:  # it was the last attempt
            self._note_death(error, line, JobState.DEAD, DeathCause.RETRIES_EXHAUSTED)
            raise
        raise error


class _Line:
    """How a run of a job ends: the one line in the log, the count, and the end of its step."""

    def __init__(self, job: str, step: Span, *, attempt: int, waited_s: float | None) -> None:
        self._job = job
        self._step = step
        self._attempt = attempt
        self._waited_s = waited_s
        self._started = time.perf_counter()
        self._written = False

    def write(self, outcome: Outcome, error: BaseException | None = None) -> None:
        """Write the line, unless it was written."""
        if self._written:
            return
        self._written = True
        seconds = time.perf_counter() - self._started
        counting.ended(self._job, outcome, seconds)
        self._step.note("samplemind.outcome", outcome.value)
        self._step.note("samplemind.attempt", self._attempt)
        facts: dict[str, Any] = {
            "outcome": outcome.value,
            "waited_s": None if self._waited_s is None else round(self._waited_s, 3),
            "ran_s": round(seconds, 4),
            "attempt": self._attempt,
        }
        if error is None:
            _log.info("job_ended", **facts)
        else:
            self._step.fail(type(error).__name__)
            _log.warning("job_ended", **facts, error=f"{type(error).__name__}: {error}")
