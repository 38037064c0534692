"""The base of every job: what is tried again, how often, and the one line it leaves in the log.

Invariant: exactly `TransientError` is tried again, after a delay that grows and is random, so that
jobs which failed together do not come back together. Every other error ends the job.
"""

import random
import time
from typing import Any, ClassVar, NoReturn

import structlog
from celery import Task
from celery.exceptions import Ignore, Reject, Retry

from samplemind.errors import PermanentError, TransientError
from samplemind.log import get_logger
from worker import deliveries, periodic

_log = get_logger(__name__)


def retry_delay(retries: int, *, base_s: float, cap_s: float) -> float:
    """Return seconds until the next attempt: random between zero and a bound that doubles.

    Full jitter spreads the attempts best (Brooker, "Exponential Backoff And Jitter", 2015).
    """
    bound: float = min(cap_s, base_s * 2.0 ** min(retries, 32))
    return random.uniform(0.0, bound)  # noqa: S311


class Job(Task):
    """A job: `@app.task(base=Job, name="area.verb_object")`, with `bind=True` where it asks for
    its own request.
    """

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
        with structlog.contextvars.bound_contextvars(job=self.name, job_id=self.request.id):
            line = _Line(attempt=self.request.retries + 1)
            try:
                deliveries.admit(self)
                result = periodic.execute(self, args, kwargs)
            except TransientError as error:
                self._try_again(error, line)
            except (Ignore, Reject, Retry) as verdict:
                line.write(type(verdict).__name__.lower())
                raise
            except Exception as error:
                line.write("failed", error)
                raise
            else:
                line.write("succeeded")
                return result
            finally:
                deliveries.settle(self)

    def on_give_up(self, *args: Any, **kwargs: Any) -> None:
        """Called with the job's arguments when it is given up for killing its workers.

        A job that stands for something in a store overrides this to mark that as failed; it may
        use `worker.runtime`. After a `TransientError` it is called again; the job is not.
        """

    def _try_again(self, error: TransientError, line: "_Line") -> NoReturn:
        delay = retry_delay(self.request.retries, base_s=self.retry_base_s, cap_s=self.retry_cap_s)
        try:
            self.retry(exc=error, countdown=delay)
        except Retry:
            line.write("retried", error)
            raise
        except Reject as verdict:
            # Celery rejects the message for good where the next attempt could not be published;
            # here it stays in the broker and is delivered again.
            line.write("returned", error)
            raise Reject(verdict.reason, requeue=True) from error
        except TransientError:
            line.write("failed", error)  # it was the last attempt
            raise
        raise error


class _Line:
    """The one line that a job leaves in the log."""

    def __init__(self, *, attempt: int) -> None:
        self._attempt = attempt
        self._started = time.perf_counter()

    def write(self, outcome: str, error: Exception | None = None) -> None:
        facts: dict[str, Any] = {
            "outcome": outcome,
            "seconds": round(time.perf_counter() - self._started, 4),
            "attempt": self._attempt,
        }
        if error is None:
            _log.info("job_ended", **facts)
        else:
            _log.warning("job_ended", **facts, error=f"{type(error).__name__}: {error}")
