"""How loud Celery is, and which job its lines are about.

Invariant: a job leaves one line, written by `worker.task`; Celery's own lines for "received" and
"succeeded" would be the second and third. Its warnings and errors stay.
"""

import logging
import warnings
from typing import Any

import structlog
from billiard.util import get_logger as get_pool_logger
from celery import signals
from celery.exceptions import CPendingDeprecationWarning

from worker.headers import header, log_names

_LEVELS = {
    "celery.app.trace": logging.WARNING,
    "celery.worker.strategy": logging.WARNING,
    # The console starts before the workers, and asks again.
    "flower.inspector": logging.ERROR,
}


def quiet_celery() -> None:
    """Raise the level of the loggers that speak once for every job, or without need."""
    for name, level in _LEVELS.items():
        logging.getLogger(name).setLevel(level)
    # The pool's logger keeps its records to itself; without a handler they come out unformatted.
    pool_logger = get_pool_logger()
    pool_logger.propagate = True
    pool_logger.setLevel(logging.WARNING)


@signals.task_prerun.connect
def _name_job(task_id: str, task: Any, kwargs: dict[str, Any], **_: object) -> None:
    # Celery's own lines about a job are written around it, outside of `Job.__call__`.
    names = log_names(task.name, task_id, kwargs or {}, header(task, "traceparent"))
    structlog.contextvars.bind_contextvars(**names)


@signals.task_postrun.connect
def _forget_job(**_: object) -> None:
    structlog.contextvars.unbind_contextvars("job", "job_id", "batch_id", "trace_id")


@signals.celeryd_after_setup.connect
def _quiet_warnings(**_: object) -> None:
    # Issued at each reconnect, even where the setting that it advises is made. Celery sets its
    # filters after the log, so only this signal comes late enough.
    warnings.simplefilter("ignore", CPendingDeprecationWarning)
