"""Jobs in the broker's Redis, through one synchronous client: send, look, cancel.

Invariant: each call is one round trip and may be repeated: what a lost answer leaves in doubt is
settled by the job's id, which the caller keeps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from samplemind.connections.redis import translating_errors
from samplemind.connections.redis_spans import client_class
from samplemind.errors import NotFoundError, StackNotRunningError
from samplemind.jobs import state
from samplemind.jobs.state import JobArea, JobState, JobStatus
from samplemind.settings import BrokerSettings

_TIMEOUT_S = 5.0
_RETRIES = 3
_JOBS_IN_A_CALL = 500
"""Sent at once: a few milliseconds of the server's time, during which it serves nobody else."""


@dataclass(frozen=True, slots=True)
class Message:
    """A job that is ready to be sent."""

    job_id: str
    task: str
    list_key: str
    text: str
    delay_ms: int = 0
    unique_key: str = ""
    unique_ms: int = 0


class JobBroker:
    """What producers and operators ask of the broker."""

    def __init__(self, broker: BrokerSettings) -> None:
        """Take the broker's address; connects at the first call.

        Raises:
            StackNotRunningError: the settings name no broker.
        """
        if broker.url is None:
            message = "no address for the broker: start the embedded stack with `samplemind up`"
            raise StackNotRunningError(message)
        self._client = _connect(broker.url.get_secret_value())
        self._enqueue = self._client.register_script(state.ENQUEUE)
        self._cancel = self._client.register_script(state.CANCEL)
        self._release = self._client.register_script(state.RELEASE)

    def close(self) -> None:
        """Close the connections; repeating it is harmless."""
        self._client.close()

    def send(self, messages: Sequence[Message]) -> list[str]:
        """Send jobs; return the id of each, which is another's where a unique key is held.

        Raises:
            StoreUnavailableError: the broker did not answer; earlier parts may have been sent.
        """
        ids: list[str] = []
        with translating_errors():
            for part in _parts(messages):
                arguments = [value for message in part for value in _arguments(message)]
                ids += [found.decode() for found in self._enqueue(args=arguments)]
        return ids

    def status(self, job_id: str) -> JobStatus:
        """Return where a job stands.

        Raises:
            NotFoundError: no worker or client has seen it, or it ended more than a day ago.
            StoreUnavailableError: the broker did not answer.
        """
        (found,) = self.statuses([job_id])
        if found is None:
            message = f"no job {job_id}: it is unknown, or ended more than a day ago"
            raise NotFoundError(message)
        return found

    def statuses(self, job_ids: Sequence[str]) -> list[JobStatus | None]:
        """Return where each job stands, in one round trip."""
        with translating_errors(), self._client.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hgetall(state.job_key(job_id))
            found = pipe.execute()
        return [
            state.read_status(job_id, fields) for job_id, fields in zip(job_ids, found, strict=True)
        ]

    def newest(self, *, limit: int, states: frozenset[JobState] = frozenset()) -> list[JobStatus]:
        """Return the jobs last seen first, in these states; none: in any."""
        chosen: list[JobStatus] = []
        for start in range(0, state.LISTED_JOBS, _JOBS_IN_A_CALL):
            with translating_errors():
                ids = self._client.zrevrange(state.JOBS, start, start + _JOBS_IN_A_CALL - 1)
            if not ids:
                break
            found = self.statuses([job_id.decode() for job_id in cast("list[bytes]", ids)])
            chosen += [
                job for job in found if job is not None and (not states or job.state in states)
            ]
            if len(chosen) >= limit:
                break
        return chosen[:limit]

    def newest_of(self, area: JobArea, *, limit: int) -> list[JobStatus]:
        """Return an area's jobs: all that are under way first, then the others, the newest first.

        Jobs of other areas, however many, hide none of them.
        """
        with translating_errors(), self._client.pipeline(transaction=False) as pipe:
            found = self._client.zrevrange(state.area_key(area), 0, state.LISTED_OF_AREA - 1)
            job_ids = [job_id.decode() for job_id in cast("list[bytes]", found)]
            for job_id in job_ids:
                pipe.hget(state.job_key(job_id), "state")
            states = [each and JobState(each.decode()) for each in pipe.execute()]
        kept = [(job_id, each) for job_id, each in zip(job_ids, states, strict=True) if each]
        # Sorting is stable: within each half the newest stay first.
        chosen = [job_id for job_id, _ in sorted(kept, key=lambda pair: pair[1].ended)]
        return [job for job in self.statuses(chosen[:limit]) if job is not None]

    def cancel(self, job_id: str) -> str:
        """Cancel a job; return `cancelled`, `requested` of a running one, or how it had ended."""
        with translating_errors():
            return cast("bytes", self._cancel(args=[job_id])).decode()

    def release_due(self, *, limit: int) -> int:
        """Move jobs whose time has come into their queues; return how many."""
        with translating_errors():
            return cast("int", self._release(args=[limit]))

    def forget_old(self) -> None:
        """Take out of the lists what no state is kept of, and what is beyond their length."""
        with translating_errors():
            seconds, _ = self._client.time()
            oldest_ms = (seconds - state.ACTIVE_LIFE_S) * 1000
            lists = {state.JOBS: state.LISTED_JOBS} | {
                state.area_key(area): state.LISTED_OF_AREA for area in JobArea
            }
            with self._client.pipeline(transaction=False) as pipe:
                for key, length in lists.items():
                    pipe.zremrangebyscore(key, "-inf", oldest_ms)
                    pipe.zremrangebyrank(key, 0, -length - 1)
                pipe.execute()


def _parts(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    for start in range(0, len(messages), _JOBS_IN_A_CALL):
        yield messages[start : start + _JOBS_IN_A_CALL]


def _arguments(message: Message) -> tuple[Any, ...]:
    return (
        message.job_id,
        message.task,
        message.list_key,
        message.text,
        message.delay_ms,
        message.unique_key,
        message.unique_ms,
    )


def _connect(url: str) -> Redis:
    return client_class().from_url(
        url,
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
        socket_keepalive=True,
        retry=Retry(ExponentialWithJitterBackoff(1.0, 0.05), _RETRIES),
        client_name="samplemind-jobs",
    )
