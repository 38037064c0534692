"""How loud Celery is.

Invariant: a job leaves one line, written by `worker.task`; Celery's own lines for "received" and
"succeeded" would be the second and third. Its warnings and errors stay.
"""

import logging

_QUIET = ("celery.app.trace", "celery.worker.strategy", "celery.pool", "celery.redirected")


def quiet_celery() -> None:
    """Raise the level of Celery's loggers that speak once for every job."""
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
