"""How loud Celery is.

Invariant: a job leaves one line, written by `worker.task`; Celery's own lines for "received" and
"succeeded" would be the second and third. Its warnings and errors stay.
"""

import logging

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
