"""Sending jobs: what another service imports.

    async with Jobs() as jobs:
        submission = await jobs.submit_batch(["/samples/pack"], owner="ada@example.org")

Invariant: a payload is validated before it is published, and a batch is in MongoDB before any of
its messages is, so a message never names what is not there. A publish that fails half-way loses
nothing: the rescue publishes the rest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import UUID

from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError
from tenacity import (
    AsyncRetrying,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from samplemind.errors import StoreUnavailableError
from samplemind.ids import new_id
from samplemind.jobs.payloads import Payload
from samplemind.jobs.wire import queue_for, tls_options, transport_options
from samplemind.settings import Settings, get_settings

if TYPE_CHECKING:
    # Drivers load when a batch is submitted, not when a web service imports this module.
    from samplemind.batches.feeding import HandedOut
    from samplemind.connections.resources import Connections

_PUBLISH_ATTEMPTS = 4
_BROKER_ERRORS = (KombuError, RedisError, OSError)


@dataclass(frozen=True, slots=True)
class Submission:
    """A batch that was written and published: its id and how many files it has."""

    batch_id: UUID
    files: int


class Jobs:
    """A client of the platform; use one for the life of a service, and close it."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Take the settings given, or those of the environment; connects to nothing yet."""
        self._settings = settings or get_settings()
        self._celery = producer(self._settings)
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
        self._celery.close()
        if self._connections is not None:
            await self._connections.aclose()
            self._connections = None

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
            kind: what is done with each, of `samplemind.batches.kind.kind_names()`.
            callback: a job that is sent once, when the batch has finished.
            wait_s: seconds to wait for a broker that is away; then, or at once, it is an error.
            batch_id: chosen by the caller (`samplemind.ids.new_id`), so that the call can be
                repeated after an error: the same id is the same batch. None: a new one.

        Raises:
            InvalidInputError: no path, more files than a batch may have, no email address, or no
                such kind.
            StoreUnavailableError: a store did not answer. Repeat it with the same `batch_id`; if
                the batch was written already, it is handed out by itself.
        """
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
                await feed(self._open(), plan.owner_id, partial(publish_chunks, self._celery))
        return Submission(plan.batch_id, plan.total)

    def _open(self) -> "Connections":
        from samplemind.connections.resources import Connections

        if self._connections is None:
            self._connections = Connections(self._settings)
        return self._connections


def producer(settings: Settings) -> Celery:
    """Return a bare Celery client that publishes by name and knows no task's code."""
    url = settings.broker.url
    app = Celery("samplemind-jobs", set_as_current=False)
    app.conf.update(
        broker_url=url.get_secret_value() if url else None,
        # Kombu's own attempts to connect would take six seconds within each of `publish`.
        broker_transport_options=transport_options(settings.broker) | {"max_retries": 0},
        broker_use_ssl=tls_options(settings.broker),
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        # Failing soon and clearly beats a request that hangs on a lost broker.
        broker_connection_timeout=5,
        broker_connection_max_retries=3,
        task_publish_retry=False,  # `publish` tries again by itself, the whole pipeline
    )
    return app


def publish_chunks(app: Celery, handed_out: "Sequence[HandedOut]") -> None:
    """Publish a job for each chunk of a batch; each is another job than any before it.

    Raises:
        StoreUnavailableError: the broker did not take them.
    """
    from samplemind.batches.kind import find_kind

    publish(
        app,
        [
            find_kind(each.kind).job(
                batch_id=each.chunk.batch_id, first=each.chunk.first, last=each.chunk.last
            )
            for each in handed_out
        ],
    )


def publish(app: Celery, payloads: Sequence[Payload], *, ids: Sequence[UUID] = ()) -> None:
    """Publish jobs in one pipeline, with the ids given or fresh ones.

    A pipeline that failed may have published a part, so all of it is sent again with the same
    ids: a job may run twice and counts once.

    Raises:
        StoreUnavailableError: the broker did not take them.
    """
    job_ids = ids or [new_id() for _ in payloads]
    retrying = Retrying(
        retry=retry_if_exception_type(_BROKER_ERRORS),
        stop=stop_after_attempt(_PUBLISH_ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.1, max=1),
        reraise=True,
    )
    try:
        retrying(_publish_once, app, payloads, job_ids)
    except _BROKER_ERRORS as error:
        message = f"the broker did not take {len(payloads)} jobs"
        raise StoreUnavailableError(message) from error


def _publish_once(app: Celery, payloads: Sequence[Payload], job_ids: Sequence[UUID]) -> None:
    with app.producer_or_acquire() as sender, sender.batch():
        for payload, job_id in zip(payloads, job_ids, strict=True):
            app.send_task(
                payload.job_name,
                kwargs=payload.model_dump(mode="json"),
                queue=queue_for(payload.job_name).value,
                task_id=str(job_id),
                producer=sender,
            )
