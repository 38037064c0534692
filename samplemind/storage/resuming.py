"""Downloads that go on where a lost connection left them.

Invariant: each byte is yielded once and in order, whatever number of requests it took. A download
that makes no progress ends after the given number of attempts.
"""

import random
import time
from collections.abc import Callable, Iterator

from samplemind.errors import StoreUnavailableError

OpenAt = Callable[[int, int | None], Iterator[bytes]]
"""Yields an object's bytes from an offset, at most so many."""

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0


def resume_download(
    open_at: OpenAt, start: int, length: int | None, attempts: int
) -> Iterator[bytes]:
    """Yield an object's bytes, asking again from where the store fell silent.

    Raises:
        StoreUnavailableError: so many requests in a row gave nothing.
    """
    offset = start
    left = length
    failures = 0
    while left is None or left > 0:
        try:
            for block in open_at(offset, left):
                failures = 0
                offset += len(block)
                left = None if left is None else left - len(block)
                yield block
            return
        except StoreUnavailableError:
            failures += 1
            if failures >= attempts:
                raise
            pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**failures)
            time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
