"""Jobs that work through batches."""

from functools import partial
from typing import Any
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded

from samplemind import batches
from samplemind.documents.batch_job import Callback
from samplemind.errors import AudioReadError
from samplemind.jobs.payloads import (
    AnalyzeBatch,
    BatchChunk,
    FeedBatches,
    IndexDirty,
    RescueBatches,
    WorkBatch,
)
from samplemind.jobs.publishing import publish, publish_chunks
from samplemind.repositories.batch_items import Chunk
from worker.app import app
from worker.once import publish_once
from worker.runtime import connections, run
from worker.task import Job

_send = partial(publish_chunks, app)


@app.task(base=Job, bind=True, name=AnalyzeBatch.job_name)
def analyze_batch(self: Job, **payload: Any) -> None:
    """Analyse a part of a batch; the last part to end finishes the batch."""
    _work_through(self, AnalyzeBatch.model_validate(payload))


@app.task(base=Job, bind=True, name=WorkBatch.job_name)
def work_batch(self: Job, **payload: Any) -> None:
    """Work through a part of a batch; the last part to end finishes the batch."""
    _work_through(self, WorkBatch.model_validate(payload))


@app.task(base=Job, name=FeedBatches.job_name)
def feed_batches(**_: Any) -> None:
    """Hand out what the limits and the other owners' share of the queue allow by now."""
    run(batches.feed_all(connections(), _send))


@app.task(base=Job, name=RescueBatches.job_name)
def rescue_batches(**_: Any) -> None:
    """Publish again what nobody works on, and send the callbacks that were not sent."""
    batches.republish(connections(), run=run, publish=lambda lost: _send([lost]))
    batches.send_callbacks(connections(), run=run, send_once=_send_once)


def _work_through(job: Job, chunk: BatchChunk) -> None:
    report = batches.work_chunk(
        batches.Work(
            connections(),
            Chunk(chunk.batch_id, chunk.first, chunk.last),
            job.request.id,
            run=run,
            queue_drain=lambda: publish(app, [IndexDirty()]),
            interruptions=(SoftTimeLimitExceeded,),
        ),
        send=_send,
        send_once=_send_once,
    )
    if report.again:
        message = f"{report.again} files could not be read for now"
        raise AudioReadError(message)


def _send_once(job_id: UUID, callback: Callback) -> None:
    publish_once(app, callback.name, callback.arguments, job_id)
