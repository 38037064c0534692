"""Plain Celery with the platform's worker settings and none of its guarantees, as the peer."""

import os

from celery import Celery

app = Celery("plain", broker=os.environ["SAMPLEMIND_BROKER_URL"])
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,
    worker_max_tasks_per_child=500,
    worker_send_task_events=True,
    task_send_sent_event=True,
    broker_connection_retry_on_startup=True,
    task_default_queue="default",
)


@app.task(name="bench.nothing")
def nothing() -> None:
    """Cost what Celery costs."""
