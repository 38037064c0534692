"""How often a message was delivered to a worker that did not live to end its job.

A job can kill the process that runs it (a decoder that crashes, memory that runs out) or take the
whole worker along. Its message then comes back, marked as redelivered. Only such messages are
counted, at their start, so that an ordinary job costs nothing. The count of one whose job ended in
order is forgotten; a worker that leaves in order does not mark what it gives back, and takes off
what it had counted.

Invariant: a job starts at most `worker.max_deliveries` times. After that it is given up: its
`on_give_up` is called, it becomes a dead letter, and its message leaves the broker.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from celery.exceptions import Reject
from redis import Redis
from redis.exceptions import RedisError

from samplemind.connections.redis import translating_errors
from samplemind.errors import PermanentError, SampleMindError, TransientError
from samplemind.jobs.wire import KEY_PREFIX
from samplemind.log import get_logger
from samplemind.settings import get_settings
from worker import runtime
from worker.metrics import counting

if TYPE_CHECKING:
    from worker.task import Job

_LIFE_S = 7 * 24 * 3600

_log = get_logger(__name__)


class GivenUpError(PermanentError):
    """The job has killed too many workers."""


def count(job: "Job") -> int:
    """Return which delivery of its message the running job is: 1 for the first.

    Above 1, an earlier delivery took its process or its worker along, and it may well have been
    this job's doing.
    """
    return int(getattr(job.request, "delivery_count", 1))


def admit(job: "Job") -> None:
    """Count the delivery of a job that is about to start.

    Raises:
        GivenUpError: it has started often enough.
        Reject: so it has, but what it stands for could not be marked as failed.
        StoreUnavailableError: Redis did not answer when it was counted.
    """
    if not _was_redelivered(job):
        return
    counting.redelivered(job.name)
    job.request.delivery_count = 1 + runtime.run(_increment(job.request.id))
    if count(job) > get_settings().worker.max_deliveries:
        _give_up(job)


def settle(job: "Job") -> None:
    """Forget the count of a job that has ended in order, however it ended."""
    if not _was_redelivered(job) or getattr(job.request, "keeps_count", False):
        return
    try:
        runtime.run(_forget(job.request.id))
    except SampleMindError as error:
        # The count is forgotten by itself after a week; the job has ended and must not fail now.
        _log.warning("deliveries_not_forgotten", error=str(error))


def forgive(client: Redis, job_ids: Iterable[str]) -> None:
    """Take one delivery off, for jobs that end because their worker was told to leave."""
    try:
        with client.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.decr(_key(job_id))
                pipe.expire(_key(job_id), _LIFE_S)
            pipe.execute()
    except RedisError as error:
        # The jobs are given back all the same; at worst one is given up a delivery early.
        _log.warning("deliveries_not_forgiven", error=str(error))


def _was_redelivered(job: "Job") -> bool:
    return was_redelivered(job.request.delivery_info)


def was_redelivered(delivery_info: Mapping[str, Any] | None) -> bool:
    """Return whether a message with this delivery info was taken by a worker before."""
    return bool((delivery_info or {}).get("redelivered"))


def _give_up(job: "Job") -> NoReturn:
    started = get_settings().worker.max_deliveries
    _log.error("job_given_up", deliveries=started)
    try:
        job.on_give_up(*job.request.args, **job.request.kwargs)
    except TransientError as error:
        # The next delivery is to end here again, and not in the job.
        job.request.keeps_count = True
        raise Reject(str(error), requeue=True) from error
    message = f"{started} workers died with it"
    raise GivenUpError(message)


async def _increment(job_id: str) -> int:
    broker = runtime.connections().broker
    with translating_errors():
        async with broker.pipeline(transaction=True) as pipe:
            pipe.incr(_key(job_id))
            pipe.expire(_key(job_id), _LIFE_S)
            number, _ = await pipe.execute()
    return int(number)


async def _forget(job_id: str) -> None:
    with translating_errors():
        await runtime.connections().broker.delete(_key(job_id))


def _key(job_id: str) -> str:
    return f"{KEY_PREFIX}deliveries:{job_id}"
