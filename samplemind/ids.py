"""Identifiers of rows, documents and jobs.

Invariant: ids sort by the time they were made (UUIDv7, RFC 9562 section 5.7), so that inserts go
to the end of every B-tree.
"""

import secrets
import time
from uuid import UUID

_RANDOM_BITS = 74


def new_id() -> UUID:
    """Return a fresh UUIDv7: 48 bits of Unix milliseconds, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    random = secrets.randbits(_RANDOM_BITS)
    value = milliseconds << 80 | 0x7 << 76 | (random >> 62) << 64
    value |= 0b10 << 62 | random & ((1 << 62) - 1)
    return UUID(int=value)
