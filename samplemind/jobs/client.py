"""Sending jobs and asking after them: what another service imports.

    async with Jobs() as jobs:
        job_id = await jobs.enqueue(IndexFiles(ids=ids), idempotency_key="pack 7")
        report = await jobs.result(job_id, timeout=30)
        submission = await jobs.submit_batch(["/samples/pack"], owner="ada@example.org")

`SyncJobs` is the same without `await`. Importing this module loads no driver, no Celery and no
numpy; each loads when it is first needed.

Invariant: a payload is validated before it is published, and a batch is in MongoDB before any of
its messages is, so a message never names what is not there. A publish that fails half-way loses
nothing: the rescue publishes the rest.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from samplemind.errors import InvalidInputError, JobFailedError, StoreUnavailableError
from samplemind.ids import new_id
from samplemind.jobs.envelope import (
    Priority,
    encode_body,
    encode_message,
    expiry,
    list_key,
)
from samplemind.jobs.payloads import Payload
from samplemind.jobs.publishing import producer, publish_chunks, sending
from samplemind.jobs.state import ENDED_LIFE_S, JobArea, JobState, JobStatus, unique_key
from samplemind.jobs.wire import queue_for
from samplemind.tracing import configure_tracing

if TYPE_CHECKING:
    # Drivers and Celery load when something is sent, settings when a client is made; a web service
    # that imports this module pays for neither.
    from celery import Celery

    from samplemind.connections.resources import Connections
    from samplemind.jobs.broker import JobBroker, Message
    from samplemind.settings import Settings

_FIRST_LOOK_S = 0.02
_LAST_LOOK_S = 0.5
_KEY_LENGTH = 500
_JOBS_IN_MEMORY = 5_000
_DAY = timedelta(seconds=ENDED_LIFE_S)


@dataclass(frozen=True, slots=True)
class Submission:
    """A batch that was written and published: its id and how many files it has."""

    batch_id: UUID
    files: int


class SyncJobs:
    """A client of the platform for code without an event loop; it may be shared by threads."""

    def __init__(self, settings: "Settings | None" = None) -> None:
        """Take the settings given, or those of the environment; connects to nothing yet.

        Raises:
            SettingsError: they ask for traces, and what sends them is not installed.
        """
        self._settings = settings or _settings()
        configure_tracing(self._settings.tracing, "samplemind-client")
        self._broker: JobBroker | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened; repeating it is harmless."""
        if self._broker is not None:
            self._broker.close()
            self._broker = None

    def enqueue(
        self,
        payload: Payload,
        *,
        idempotency_key: str | None = None,
        unique_for: timedelta = _DAY,
        delay: timedelta | None = None,
        expires: timedelta | datetime | None = None,
        priority: int = Priority.NORMAL,
    ) -> UUID:
        """Send a job and return its id.

        Args:
            payload: what the job is told; its class says which job.
            idempotency_key: while a job with this key waits, runs, or succeeded not longer than
                `unique_for` ago, its id is returned and nothing is sent. Each task has keys of its
                own. A job that failed, was cancelled or is dead frees its key.
            unique_for: see above; a day at most.
            delay: how long the job waits before it may start.
            expires: the job does not start later than this; after `delay`, if both are given.
            priority: 0 goes first within its queue, 9 last.

        Raises:
            InvalidInputError: an argument is out of its range; the message says which.
            StoreUnavailableError: the broker did not answer; with an idempotency key, repeating
                the call sends the job once.
        """
        with sending(payload.job_name):
            message = _message(
                payload,
                idempotency_key=idempotency_key,
                unique_for=unique_for,
                delay=delay,
                expires=expires,
                priority=priority,
            )
            (job_id,) = self._open().send([message])
        return UUID(job_id)

    def enqueue_many(
        self,
        payloads: Iterable[Payload],
        *,
        delay: timedelta | None = None,
        expires: timedelta | datetime | None = None,
        priority: int = Priority.NORMAL,
    ) -> list[UUID]:
        """Send many jobs, hundreds in one round trip, and return their ids in order.

        Memory stays flat but for the ids, however many there are.

        Raises:
            InvalidInputError: an argument is out of its range.
            StoreUnavailableError: the broker did not answer; earlier jobs may have been sent.
        """
        broker = self._open()
        ids: list[UUID] = []
        messages = (
            _message(payload, delay=delay, expires=expires, priority=priority)
            for payload in payloads
        )
        with sending("jobs") as step:
            for part in _chunks(messages):
                ids += map(UUID, broker.send(part))
            step.note("messaging.batch.message_count", len(ids))
        return ids

    def status(self, job_id: UUID | str) -> JobStatus:
        """Return where a job stands.

        Raises:
            NotFoundError: it is unknown, or ended more than a day ago.
            StoreUnavailableError: the broker did not answer.
        """
        return self._open().status(str(job_id))

    def progress(self, job_id: UUID | str) -> dict[str, Any] | None:
        """Return `{"done": …, "total": …}` of a job that tells it; none if it has not (yet).

        Raises:
            NotFoundError, StoreUnavailableError: as `status`.
        """
        return self.status(job_id).progress

    def result(self, job_id: UUID | str, *, timeout: float) -> Any:
        """Wait for a job to end and return its result.

        Args:
            job_id: which.
            timeout: seconds to wait at most.

        Raises:
            JobFailedError: it ended otherwise than well; the message says how.
            TimeoutError: it has not ended; it goes on, and may be asked for again.
            NotFoundError, StoreUnavailableError: as `status`.
        """
        for pause in _looks(job_id, timeout):
            status = self.status(job_id)
            if status.state.ended:
                return _result(status)
            time.sleep(pause)
        raise AssertionError  # `_looks` ends by raising

    def cancel(self, job_id: UUID | str) -> JobState:
        """Cancel a job.

        Returns:
            `cancelled` where it had not started and never will; `running` where it was told to
            stop, which takes seconds; otherwise the state in which it had ended.

        Raises:
            StoreUnavailableError: the broker did not answer.
        """
        answer = self._open().cancel(str(job_id))
        return JobState.RUNNING if answer == "requested" else JobState(answer)

    def newest(self, *, limit: int, states: Iterable[JobState] = ()) -> list[JobStatus]:
        """Return the jobs that were first seen last, in these states; none: in any."""
        return self._open().newest(limit=limit, states=frozenset(states))

    def newest_of(self, area: JobArea, *, limit: int) -> list[JobStatus]:
        """Return an area's jobs: all that are under way first, then the others, newest first."""
        return self._open().newest_of(area, limit=limit)

    def _open(self) -> "JobBroker":
        from samplemind.jobs.broker import JobBroker

        if self._broker is None:
            self._broker = JobBroker(self._settings.broker)
        return self._broker


class Jobs:
    """A client of the platform; use one for the life of a service, and close it.

    Each call waits in a thread, so that the caller's loop never does.
    """

    def __init__(self, settings: "Settings | None" = None) -> None:
        """Take the settings given, or those of the environment; connects to nothing yet."""
        self._settings = settings or _settings()
        self._sync = SyncJobs(self._settings)
        self._celery: Celery | None = None
        self._connections: Connections | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close what was opened; repeating it is harmless."""
        self._sync.close()
        if self._celery is not None:
            self._celery.close()
            self._celery = None
        if self._connections is not None:
            await self._connections.aclose()
            self._connections = None

    async def enqueue(
        self,
        payload: Payload,
        *,
        idempotency_key: str | None = None,
        unique_for: timedelta = _DAY,
        delay: timedelta | None = None,
        expires: timedelta | datetime | None = None,
        priority: int = Priority.NORMAL,
    ) -> UUID:
        """Do as `SyncJobs.enqueue`."""
        return await asyncio.to_thread(
            self._sync.enqueue,
            payload,
            idempotency_key=idempotency_key,
            unique_for=unique_for,
            delay=delay,
            expires=expires,
            priority=priority,
        )

    async def enqueue_many(
        self,
        payloads: Iterable[Payload],
        *,
        delay: timedelta | None = None,
        expires: timedelta | datetime | None = None,
        priority: int = Priority.NORMAL,
    ) -> list[UUID]:
        """Do as `SyncJobs.enqueue_many`."""
        return await asyncio.to_thread(
            self._sync.enqueue_many, payloads, delay=delay, expires=expires, priority=priority
        )

    async def status(self, job_id: UUID | str) -> JobStatus:
        """Do as `SyncJobs.status`."""
        return await asyncio.to_thread(self._sync.status, job_id)

    async def progress(self, job_id: UUID | str) -> dict[str, Any] | None:
        """Do as `SyncJobs.progress`."""
        return await asyncio.to_thread(self._sync.progress, job_id)

    async def result(self, job_id: UUID | str, *, timeout: float) -> Any:  # noqa: ASYNC109
        """Do as `SyncJobs.result`."""
        for pause in _looks(job_id, timeout):
            status = await self.status(job_id)
            if status.state.ended:
                return _result(status)
            await asyncio.sleep(pause)
        raise AssertionError  # `_looks` ends by raising

    async def cancel(self, job_id: UUID | str) -> JobState:
        """Do as `SyncJobs.cancel`."""
        return await asyncio.to_thread(self._sync.cancel, job_id)

    async def newest_of(self, area: JobArea, *, limit: int) -> list[JobStatus]:
        """Do as `SyncJobs.newest_of`."""
        return await asyncio.to_thread(self._sync.newest_of, area, limit=limit)

    async def submit_batch(
        self,
        paths: Iterable[str | Path],
        *,
        owner: str | None = None,
        batch_id: UUID | None = None,
        kind: str = "analyze",
        callback: Payload | None = None,
        wait_s: float = 0,
    ) -> Submission:
        """Submit files as a batch, for analysis; folders stand for the audio files below them.

        Args:
            paths: files and folders, as the workers will see them. Of a kind that works on the
                library they may be gone from the disk, and none stands for all of the owner's.
            owner: email of the user whose files they are; none: the library's own.
            batch_id: chosen by the caller (`samplemind.ids.new_id`), so that the call can be
                repeated after an error: the same id is the same batch. None: a new one.
            kind: what is done with each, of `samplemind.batches.kind.kind_names()`.
            callback: a job that is sent once, when the batch has finished.
            wait_s: seconds to wait for a broker that is away; then, or at once, it is an error.

        Raises:
            InvalidInputError: no path, more files than a batch may have, no email address, or no
                such kind.
            StoreUnavailableError: a store did not answer. Repeat it with the same `batch_id`; if
                the batch was written already, it is handed out by itself.
        """
        from tenacity import (
            AsyncRetrying,
            retry_if_exception_type,
            stop_after_delay,
            wait_random_exponential,
        )

        from samplemind.batches.feeding import feed
        from samplemind.batches.submit import write_batch

        plan = await write_batch(
            self._open(),
            [Path(path) for path in paths],
            owner=owner,
            batch_id=batch_id,
            kind=kind,
            callback=callback,
        )
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(StoreUnavailableError),
            stop=stop_after_delay(wait_s),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            reraise=True,
        ):
            with attempt:
                await feed(self._open(), plan.owner_id, partial(publish_chunks, self._producer()))
        return Submission(plan.batch_id, plan.total)

    def _open(self) -> "Connections":
        from samplemind.connections.resources import Connections

        if self._connections is None:
            self._connections = Connections(self._settings)
        return self._connections

    def _producer(self) -> "Celery":
        if self._celery is None:
            self._celery = producer(self._settings)
        return self._celery


def _settings() -> "Settings":
    from samplemind.settings import get_settings

    return get_settings()


def _message(
    payload: Payload,
    *,
    idempotency_key: str | None = None,
    unique_for: timedelta = _DAY,
    delay: timedelta | None = None,
    expires: timedelta | datetime | None = None,
    priority: int = Priority.NORMAL,
) -> "Message":
    from samplemind.jobs.broker import Message

    if delay is not None and delay < timedelta(0):
        problem = "delay must not be negative"
        raise InvalidInputError(problem)
    if not timedelta(0) <= unique_for <= _DAY:
        problem = "unique_for must be between zero and a day"
        raise InvalidInputError(problem)
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= _KEY_LENGTH:
        problem = f"an idempotency key has 1 to {_KEY_LENGTH} characters"
        raise InvalidInputError(problem)
    if isinstance(expires, timedelta) and delay is not None:
        expires += delay
    job_id = str(new_id())
    name = payload.job_name
    queue = queue_for(name).value
    step = Priority.of(priority)
    return Message(
        job_id=job_id,
        task=name,
        list_key=list_key(queue, step),
        text=encode_message(
            name,
            encode_body(payload.model_dump(mode="json")),
            job_id=job_id,
            queue=queue,
            schema_version=payload.schema_version,
            priority=step,
            expires=expiry(expires),
            delay_s=0.0 if delay is None else delay.total_seconds(),
        ),
        delay_ms=_milliseconds(delay),
        unique_key="" if idempotency_key is None else unique_key(name, idempotency_key),
        unique_ms=_milliseconds(unique_for),
    )


def _milliseconds(time: timedelta | None) -> int:
    return 0 if time is None else int(time.total_seconds() * 1000)


def _chunks(messages: "Iterator[Message]") -> "Iterator[list[Message]]":
    while part := list(islice(messages, _JOBS_IN_MEMORY)):
        yield part


def _looks(job_id: UUID | str, timeout: float) -> Iterator[float]:
    """Yield the pause after each look, growing, and raise when the time is over."""
    deadline = time.monotonic() + timeout
    pause = _FIRST_LOOK_S
    while True:
        left = deadline - time.monotonic()
        yield max(0.0, min(pause, left))
        if left <= 0:
            message = f"job {job_id} has not ended within {timeout} s; it goes on"
            raise TimeoutError(message)
        pause = min(_LAST_LOOK_S, pause * 1.5)


def _result(status: JobStatus) -> Any:
    if status.state is JobState.SUCCEEDED:
        return status.result
    message = f"job {status.id} is {status.state.value}: {status.error or 'no more is known'}"
    raise JobFailedError(message)
