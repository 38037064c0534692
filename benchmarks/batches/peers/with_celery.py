"""Plain Celery, with late acknowledgement as any durable queue has it."""

import os

from celery import Celery

from benchmarks.batches.peers.upsert import upsert_one

app = Celery("peer", broker=os.environ["BENCH_REDIS_URL"], set_as_current=False)
app.conf.update(task_acks_late=True, task_ignore_result=True, task_default_queue="peer.celery")


@app.task(name="peer.upsert")
def upsert(file_id: str) -> None:
    upsert_one(file_id)
