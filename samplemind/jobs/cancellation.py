"""Whether the job that this process runs was cancelled, for loops that want to end in good order.

Invariant: outside of a worker nothing is ever cancelled, so code that asks works anywhere.
"""

import threading

from samplemind.errors import JobCancelledError

_requested = threading.Event()


def checkpoint() -> None:
    """Let a cancelled job end here; call it in long loops, where what was written is consistent.

    Raises:
        JobCancelledError: the running job was cancelled.
    """
    if _requested.is_set():
        message = "the job was cancelled"
        raise JobCancelledError(message)


def is_requested() -> bool:
    """Return whether the running job was cancelled."""
    return _requested.is_set()


def request() -> None:
    """Have the running job end at its next checkpoint; the worker's to call."""
    _requested.set()


def clear() -> None:
    """Forget the request, because another job begins; the worker's to call."""
    _requested.clear()
