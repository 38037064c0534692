"""A job as the broker holds it: Celery's message protocol 2 in Kombu's Redis envelope.

Built here and not by Celery because that takes a tenth of the time and loads none of it; a test
compares the two, and a stock Celery worker takes either. See "Message Protocol" in Celery's manual.

Invariant: a message is plain JSON and says in its header which version of its payload it has.
"""

import json
import os
import socket
import time
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any
from uuid import UUID, uuid4

from samplemind.errors import InvalidInputError
from samplemind.jobs.wire import KEY_PREFIX
from samplemind.tracing import trace_headers

SCHEMA_HEADER = "samplemind_schema"
"""Header with the version of the payload's model; none: 1, as before there was a header."""
TRACKED_HEADER = "samplemind_tracked"
"""Header of a message whose job has a state in the broker already."""
REPLAY_HEADER = "samplemind_replay_of"
"""Header of a job that is sent again: the id of its dead letter."""
SENT_HEADER = "samplemind_sent"
"""Header with the time from which a job waits, in Unix seconds: it was sent, or its delay ended."""

# `json.dumps` with separators makes an encoder for each call.
_dumps = json.JSONEncoder(separators=(",", ":")).encode
_ORIGIN = f"{os.getpid()}@{socket.gethostname()}"
_EMBED = '{"callbacks":null,"errbacks":null,"chain":null,"chord":null}'
_REPR_LENGTH = 200


class Priority(IntEnum):
    """Which jobs of one queue go first. What somebody waits for has a queue of its own."""

    NORMAL = 0
    LOW = 3
    LOWER = 6
    LOWEST = 9

    @classmethod
    def of(cls, number: int) -> "Priority":
        """Return the step a number from 0 to 9 belongs to.

        Raises:
            InvalidInputError: it is another number.
        """
        if not 0 <= number <= 9:
            message = f"priority {number} is not between 0 (first) and 9 (last)"
            raise InvalidInputError(message)
        return max(step for step in cls if step <= number)


def list_key(queue: str, priority: Priority = Priority.NORMAL) -> str:
    """Return the Redis list of a queue; Kombu has one for each step of priority."""
    step = f"\x06\x16{priority.value}" if priority else ""
    return f"{KEY_PREFIX}{queue}{step}"


def encode_body(kwargs: dict[str, Any], args: list[Any] | None = None) -> str:
    """Return a message's body: arguments, named arguments, and what Celery embeds."""
    return f"[{_dumps(args or [])},{_dumps(kwargs)},{_EMBED}]"


def encode_message(
    task: str,
    body: str,
    *,
    job_id: str,
    queue: str,
    schema_version: int,
    priority: Priority = Priority.NORMAL,
    expires: datetime | None = None,
    replay_of: UUID | None = None,
    delay_s: float = 0.0,
) -> str:
    """Return the message as it stands in the queue's list."""
    shown = body.removesuffix(f",{_EMBED}]").removeprefix("[[],")[:_REPR_LENGTH]
    headers: dict[str, Any] = {
        "lang": "py",
        "task": task,
        "id": job_id,
        "shadow": None,
        "eta": None,
        "expires": expires.astimezone(UTC).isoformat() if expires else None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": job_id,
        "parent_id": None,
        "argsrepr": "()",
        "kwargsrepr": shown,
        "origin": _ORIGIN,
        "ignore_result": None,  # as the job's own code says
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        SCHEMA_HEADER: schema_version,
        TRACKED_HEADER: True,
        SENT_HEADER: round(time.time() + delay_s, 3),
        **trace_headers(),
    }
    if replay_of is not None:
        headers[REPLAY_HEADER] = str(replay_of)
    properties = {
        "correlation_id": job_id,
        "reply_to": "",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "priority": priority.value,
        "body_encoding": "base64",
        "delivery_tag": str(uuid4()),
    }
    message = {
        "body": b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": properties,
    }
    return _dumps(message)


def sent_headers() -> dict[str, Any]:
    """Return what a message says of its sending, for one that Celery builds."""
    return {SENT_HEADER: round(time.time(), 3), **trace_headers()}


def expiry(expires: timedelta | datetime | None) -> datetime | None:
    """Return the moment after which a job need not start.

    Raises:
        InvalidInputError: the time has no zone.
    """
    if isinstance(expires, timedelta):
        return datetime.now(UTC) + expires
    if expires is not None and expires.tzinfo is None:
        message = "expires has no time zone: give a UTC-aware time, or a timedelta from now"
        raise InvalidInputError(message)
    return expires
