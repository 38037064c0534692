"""Taking the caller's context along into a thread of a pool.

Invariant: what a line in the log names (the job, the batch) and the step of a trace hold in the
threads that a job works with as they do in its own.
"""

import contextvars
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def carrying(work: Callable[P, R]) -> Callable[P, R]:
    """Return the same work, done in a copy of the context in which this was called."""
    context = contextvars.copy_context()

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        # A context is entered by one thread at a time, so each call has a copy.
        return context.copy().run(work, *args, **kwargs)

    return run
