"""Running a periodic job: once a slot, with a record of how it went.

Invariant: of all messages with one slot, the first to start runs, and a redelivery of that same
message, or its own retry, runs again. A record that cannot be written never keeps the job from
running: it does its work and a warning says what is missing.
"""

import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery.exceptions import Ignore, Reject, Retry

from samplemind.connections.redis import translating_errors
from samplemind.errors import SampleMindError, TransientError
from samplemind.jobs.periodic import MANUAL, SEND_HEADER, SLOT_HEADER, slot_key
from samplemind.log import get_logger
from samplemind.repositories.periodic_runs import PeriodicRunRepository, RunOutcome
from worker import runtime
from worker.headers import header

if TYPE_CHECKING:
    from worker.task import Job

_SLOT_LIFE_S = 2 * 24 * 3600

_log = get_logger(__name__)


def execute(job: "Job", args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run the job's own code; what a slot asks for besides is done where it has one.

    Raises:
        Ignore: another message of this slot was there before.
        StoreUnavailableError: Redis could not say whether one was.
    """
    slot = slot_of(job)
    if slot is None:
        return job.run(*args, **kwargs)
    _admit(job, slot)
    # Taken here: the request is a thing of this thread, and the record is written in another.
    name, job_id = job.name, job.request.id
    run_id = _note(lambda runs: runs.start(name, slot, job_id, socket.gethostname()))
    started = time.perf_counter()

    def end(outcome: RunOutcome, figures: Any = None, error: BaseException | None = None) -> None:
        if run_id is None:
            return
        seconds = time.perf_counter() - started
        told = f"{type(error).__name__}: {error}" if error is not None else None
        _note(lambda runs: runs.end(run_id, outcome, seconds, _plain(figures), told))

    try:
        result = job.run(*args, **kwargs)
    except (Ignore, Reject, Retry) as verdict:
        end(RunOutcome.RETRIED, error=verdict)
        raise
    except TransientError as error:
        last = job.request.retries >= job.max_retries
        end(RunOutcome.FAILED if last else RunOutcome.RETRIED, error=error)
        raise
    except BaseException as error:
        end(RunOutcome.FAILED, error=error)
        raise
    end(RunOutcome.SUCCEEDED, figures=result)
    return result


def slot_of(job: "Job") -> str | None:
    """Return the slot that the running message carries; none: it is no periodic one."""
    return header(job, SLOT_HEADER)


def _admit(job: "Job", slot: str) -> None:
    # A retry is a new message of a slot that is this job's already.
    if slot.startswith(MANUAL) or job.request.retries:
        return
    if not runtime.run(_claim(slot_key(job.name, slot), header(job, SEND_HEADER) or "")):
        _log.info("periodic_slot_taken", job=job.name, slot=slot)
        reason = f"another message of slot {slot} was there before"
        raise Ignore(reason)


async def _claim(key: str, send: str) -> bool:
    broker = runtime.connections().broker
    with translating_errors():
        if await broker.set(key, send, nx=True, ex=_SLOT_LIFE_S):
            return True
        holder = await broker.get(key)
    return (holder.decode() if isinstance(holder, bytes) else holder) == send


def _note(write: Callable[[PeriodicRunRepository], Awaitable[UUID | None]]) -> UUID | None:
    async def work() -> UUID | None:
        # Once, without the pool's patience: the job must not wait for what only records it.
        async with runtime.connections().postgres.session() as session:
            return await write(PeriodicRunRepository(session))

    try:
        return runtime.run(work())
    except SampleMindError as error:
        _log.warning("periodic_run_not_recorded", error=str(error))
        return None


def _plain(figures: Any) -> dict[str, Any]:
    if is_dataclass(figures) and not isinstance(figures, type):
        return asdict(figures)
    return figures if isinstance(figures, dict) else {}
