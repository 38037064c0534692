"""The Celery app: every setting beside its reason.

Invariant: importing this module reads no settings and needs nothing running. The configuration is
a promise that Celery calls in when a worker first asks for a value, so that the environment of the
process that runs jobs counts, and no other. Jobs and the beat table are named as strings: imports
run from `tasks` to `worker`, never back.
"""

from datetime import datetime, timedelta
from typing import Any

from celery import Celery, signals
from kombu import Queue as BoundQueue

import worker.transport
from samplemind.jobs.envelope import SENT_HEADER, sent_headers
from samplemind.jobs.wire import KEY_PREFIX, Queue, queue_for, tls_options, transport_options
from samplemind.log import configure_logging
from samplemind.settings import Settings, get_settings
from worker.beat_watch import BeatWatch
from worker.drain import Drain
from worker.due import DueJobs
from worker.heartbeat import Heartbeat
from worker.lease import LeaseKeeper
from worker.log import quiet_celery
from worker.policy import PolicyCheck

TASK_MODULES = (
    "tasks.backups",
    "tasks.batches",
    "tasks.cache",
    "tasks.jobs",
    "tasks.maintenance",
    "tasks.retention",
    "tasks.search",
)
"""Modules whose import registers the jobs; a new room of `tasks` is added here."""


def configuration(settings: Settings) -> dict[str, Any]:
    """Return Celery's configuration under these settings, whose broker must have a URL."""
    return {
        **_broker(settings),
        **_results(settings),
        **_jobs(settings),
        **_worker(settings),
        **_beat(),
    }


def _broker(settings: Settings) -> dict[str, Any]:
    return {
        "broker_url": _url(settings),
        "broker_use_ssl": tls_options(settings.broker),
        "broker_transport_options": transport_options(settings.broker),
        # A worker that starts before Redis waits for it, and one that lost Redis never gives up:
        # Celery's own bound is a hundred attempts, after which the process exits.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A publisher that finds every connection in use fails instead of hanging.
        "broker_pool_acquire_timeout": 10,
    }


def _results(settings: Settings) -> dict[str, Any]:
    return {
        "result_backend": _url(settings),
        "redis_backend_use_ssl": tls_options(settings.broker),
        "result_backend_transport_options": {
            "global_keyprefix": KEY_PREFIX,
            # Storing a failure may wait this long for Redis; it happens in the main loop when a
            # process was lost, where a longer wait would stop everything else.
            "retry_policy": {"max_retries": 3, "interval_max": 1, "timeout": 5.0},
        },
        "redis_socket_timeout": 10,
        "redis_socket_connect_timeout": 5,
        "redis_socket_keepalive": True,
        # What jobs make is in the stores, so a result would only be a second copy, and asking for
        # one costs a SUBSCRIBE with every publish. A failure is kept for whoever looks for it,
        # with the job's name and arguments.
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": True,
        "result_failure_expires": timedelta(days=7).total_seconds(),
        "result_extended": True,
    }


def _jobs(settings: Settings) -> dict[str, Any]:
    return {
        "imports": TASK_MODULES,
        # A pickle in the broker would let whoever can write there run code here.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        # A misspelt queue fails where it is published, instead of filling a list nobody reads.
        "task_queues": tuple(BoundQueue(queue.value) for queue in Queue),
        "task_default_queue": Queue.DEFAULT.value,
        "task_create_missing_queues": False,
        "task_routes": (_route,),
        # A message leaves the broker when its job has ended, not when it was fetched. A job that
        # failed has ended, too: what may be tried again is decided by Job, not by redelivery.
        "task_acks_late": True,
        # A job whose process died goes back to its queue. Celery's own bound for that
        # (task_retry_on_worker_lost) counts retries and not deaths, and knows nothing of a main
        # process that died: worker.deliveries bounds both, with one counter.
        "task_reject_on_worker_lost": True,
        "task_publish_retry_policy": {
            "max_retries": 5,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 2,
        },
        "task_soft_time_limit": settings.worker.soft_time_limit_s,
        "task_time_limit": settings.worker.time_limit_s,
        # The console shows jobs that wait, too.
        "task_send_sent_event": True,
    }


def _worker(settings: Settings) -> dict[str, Any]:
    return {
        # A job waits in the queue, where any worker can take it, until a process is free for it.
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        # Jobs that wait for their time are held in memory; beyond this, they stay in the queue.
        "worker_eta_task_limit": 1000,
        # On an overloaded machine a process that starts slowly is not dead.
        "worker_proc_alive_timeout": 30,
        # What leaks in a native decoder ends with its process.
        "worker_max_tasks_per_child": settings.worker.max_jobs_per_child,
        "worker_max_memory_per_child": settings.worker.max_memory_per_child_mib * 1024,  # KiB
        # The running job is worth more than its connection: worker.transport lets it finish and
        # be acknowledged over the next one. Celery 6 changes the default to True.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # After a reconnect Celery would take fewer messages, to make up for jobs that still run;
        # without prefetch those count already.
        "worker_enable_prefetch_count_reduction": False,
        "worker_send_task_events": True,
        # What no job takes becomes a dead letter.
        "worker_consumer": "worker.consumer:JobConsumer",
    }


def _beat() -> dict[str, Any]:
    return {
        "beat_scheduler": "worker.scheduler:LeaderScheduler",
    }


def _url(settings: Settings) -> str | None:
    url = settings.broker.url
    return None if url is None else url.get_secret_value()


def _route(name: str, *_: object, **__: object) -> dict[str, str]:
    return {"queue": queue_for(name).value}


app = Celery("samplemind", set_as_current=True)
app.add_defaults(lambda: configuration(get_settings()))
worker.transport.install()
app.steps["consumer"].update({LeaseKeeper, Heartbeat, Drain, DueJobs, PolicyCheck, BeatWatch})


@signals.before_task_publish.connect
def _say_when_it_was_sent(headers: dict[str, Any], **_: object) -> None:
    """Note from when on a job waits, and to which trace it belongs: a retry begins anew."""
    headers.update(sent_headers())
    if headers.get("eta"):
        headers[SENT_HEADER] = datetime.fromisoformat(headers["eta"]).timestamp()


@signals.setup_logging.connect
def _log_as_everywhere(**_: object) -> None:
    """Keep Celery from installing its own handlers: one pipeline serves every process."""
    configure_logging(get_settings().log)
    quiet_celery()
