"""Telling that a batch has finished: the job that its submitter asked for, sent once.

The write that ends the batch is the promise. Whoever sees a promise that is not kept sends the job
under a marker, which the broker sets in the same step in which it takes the message, and then notes
in the batch that it was sent.

Invariant: however many try, and wherever each of them dies, the message is published once. It then
is a job like any other: one whose worker dies is delivered again.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID, uuid5

from samplemind.batches.running import Run
from samplemind.connections.resources import Connections
from samplemind.documents.batch_job import BatchJob, BatchState, Callback
from samplemind.repositories.batch_jobs import BatchJobRepository

SendOnce = Callable[[UUID, Callback], None]
"""Publishes a callback under a job id, at most once for that id, however often it is called."""


def send_callback(
    connections: Connections, batch_id: UUID, *, run: Run, send_once: SendOnce
) -> None:
    """Send the callback of a batch if that is due.

    Raises:
        NotFoundError: there is no such batch.
        StoreUnavailableError: a store did not answer; the rescue sends it.
    """

    async def read() -> BatchJob:
        await connections.documents()
        return await BatchJobRepository().get(batch_id)

    _send(connections, run(read()), run, send_once)


def send_callbacks(connections: Connections, *, run: Run, send_once: SendOnce) -> None:
    """Send every callback that is due and was not sent, because its sender died or failed.

    Raises:
        StoreUnavailableError: a store did not answer; the next rescue goes on.
    """

    async def read() -> list[BatchJob]:
        await connections.documents()
        return await BatchJobRepository().list_callbacks_due()

    for job in run(read()):
        _send(connections, job, run, send_once)


def callback_job_id(batch_id: UUID) -> UUID:
    """Return the id of the job that tells of a batch's end."""
    return uuid5(batch_id, "callback")


def _send(connections: Connections, job: BatchJob, run: Run, send_once: SendOnce) -> None:
    due = job.state is BatchState.FINISHED and job.callback_sent_at is None
    if job.callback is None or not due:
        return
    send_once(callback_job_id(job.id), job.callback)

    async def note() -> None:
        await connections.documents()
        await BatchJobRepository().note_callback(job.id, datetime.now(UTC))

    run(note())
