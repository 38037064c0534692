"""Publishing jobs through Celery's own client: what processes of the platform send.

A service sends by `samplemind.jobs.client`, which writes the same messages itself. Importing this
module loads no driver and no Celery; each loads when it is first needed.

Invariant: what was published in part is published again under the same ids, so a job may run twice
and counts once.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from samplemind.errors import StoreUnavailableError
from samplemind.ids import new_id
from samplemind.jobs.envelope import SCHEMA_HEADER, sent_headers
from samplemind.jobs.payloads import Payload
from samplemind.jobs.wire import queue_for, tls_options, transport_options
from samplemind.tracing import Role, Span, span

if TYPE_CHECKING:
    from celery import Celery

    from samplemind.batches.feeding import HandedOut
    from samplemind.connections.resources import Connections
    from samplemind.jobs.periodic import Periodic
    from samplemind.settings import Settings

_PUBLISH_ATTEMPTS = 4


def sending(what: str) -> AbstractContextManager[Span]:
    """Return the step of sending, to which whatever the jobs do belongs."""
    about = {"messaging.system": "redis", "messaging.operation.type": "send"}
    return span(f"enqueue {what}", Role.PRODUCER, about)


def producer(settings: "Settings") -> "Celery":
    """Return a bare Celery client that publishes by name and knows no task's code."""
    from celery import Celery

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


def publish_chunks(app: "Celery", handed_out: "Sequence[HandedOut]") -> None:
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


async def feed_batch(connections: "Connections", batch_id: UUID) -> None:
    """Hand out what goes to the queue now of the batches of this one's owner.

    Raises:
        NotFoundError: there is no such batch.
        StoreUnavailableError: a store did not answer; the rescue goes on.
    """
    from samplemind.batches.feeding import feed
    from samplemind.repositories.batch_jobs import BatchJobRepository

    await connections.documents()
    owner_id = (await BatchJobRepository().get(batch_id)).owner_id
    with producer(connections.settings) as app:
        await feed(connections, owner_id, partial(publish_chunks, app))


def send_periodic(settings: "Settings", entry: "Periodic", job_id: str, *, slot: str) -> None:
    """Publish a run of a periodic job, once: a repetition would be a publication of its own.

    Raises:
        StoreUnavailableError: the broker did not take it.
    """
    from kombu.exceptions import KombuError
    from redis.exceptions import RedisError

    from samplemind.jobs.periodic import slot_headers

    with producer(settings) as app, sending(entry.name):
        try:
            app.send_task(
                entry.name,
                kwargs=dict(entry.kwargs),
                queue=entry.queue,
                task_id=job_id,
                headers={**slot_headers(slot), **sent_headers()},
            )
        except (KombuError, RedisError, OSError) as error:
            message = f"the broker did not take {entry.name}"
            raise StoreUnavailableError(message) from error


def publish(app: "Celery", payloads: Sequence[Payload], *, ids: Sequence[UUID] = ()) -> None:
    """Publish jobs in one pipeline, with the ids given or fresh ones.

    A pipeline that failed may have published a part, so all of it is sent again with the same
    ids: a job may run twice and counts once.

    Raises:
        StoreUnavailableError: the broker did not take them.
    """
    from kombu.exceptions import KombuError
    from redis.exceptions import RedisError
    from tenacity import (
        Retrying,
        retry_if_exception_type,
        stop_after_attempt,
        wait_random_exponential,
    )

    broker_errors = (KombuError, RedisError, OSError)
    job_ids = ids or [new_id() for _ in payloads]
    retrying = Retrying(
        retry=retry_if_exception_type(broker_errors),
        stop=stop_after_attempt(_PUBLISH_ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.1, max=1),
        reraise=True,
    )
    try:
        with sending(payloads[0].job_name if len(payloads) == 1 else "jobs"):
            retrying(_publish_once, app, payloads, job_ids)
    except broker_errors as error:
        message = f"the broker did not take {len(payloads)} jobs"
        raise StoreUnavailableError(message) from error


def _publish_once(app: "Celery", payloads: Sequence[Payload], job_ids: Sequence[UUID]) -> None:
    with app.producer_or_acquire() as sender, sender.batch():
        for payload, job_id in zip(payloads, job_ids, strict=True):
            app.send_task(
                payload.job_name,
                kwargs=payload.model_dump(mode="json"),
                queue=queue_for(payload.job_name).value,
                task_id=str(job_id),
                producer=sender,
                headers={SCHEMA_HEADER: payload.schema_version, **sent_headers()},
            )
