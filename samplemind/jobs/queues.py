"""How much waits in each queue, and for how long.

Invariant: it only looks, in two round trips however many queues there are. The age of a message is
that of its job: since it was first sent, a retry included. Of a message that another program sent
nothing says when; then the age is unknown, never 0.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

from redis.asyncio import Redis

from samplemind.connections.redis import translating_errors
from samplemind.jobs.state import job_key
from samplemind.jobs.wire import Queue, queue_keys

_TIMED_VERSION = 7


@dataclass(frozen=True, slots=True)
class QueueStanding:
    """One queue: messages that wait, and seconds since the oldest was sent.

    `oldest_s` is none where nothing waits or nothing says when it was sent.
    """

    name: str
    waiting: int
    oldest_s: float | None


async def queue_standings(broker: Redis) -> list[QueueStanding]:
    """Return every queue, in the order of `Queue`.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """
    keys = [(queue, key) for queue in Queue for key in queue_keys(queue.value)]
    with translating_errors():
        async with broker.pipeline(transaction=False) as pipe:
            for _, key in keys:
                pipe.llen(key)
                # Messages come in on the left and leave on the right.
                pipe.lindex(key, -1)
            answers = await pipe.execute()
        ids = [_job_id(text) for text in answers[1::2]]
        sent = await _sent_at(broker, [job_id for job_id in ids if job_id is not None])
    lengths = cast("list[int]", answers[::2])
    found = list(zip(keys, lengths, ids, strict=True))
    now = datetime.now(UTC)
    return [
        QueueStanding(
            name=queue.value,
            waiting=sum(length for (owner, _), length, _ in found if owner is queue),
            oldest_s=max(
                (
                    max(0.0, (now - sent[job_id]).total_seconds())
                    for (owner, _), _, job_id in found
                    if owner is queue and job_id in sent
                ),
                default=None,
            ),
        )
        for queue in Queue
    ]


async def _sent_at(broker: Redis, job_ids: Sequence[str]) -> dict[str | None, datetime]:
    async with broker.pipeline(transaction=False) as pipe:
        for job_id in job_ids:
            pipe.hget(job_key(job_id), "enqueued")
        answers = cast("list[bytes | None]", await pipe.execute()) if job_ids else []
    found: dict[str | None, datetime] = {}
    for job_id, milliseconds in zip(job_ids, answers, strict=True):
        known = int(milliseconds) if milliseconds is not None else _made_at(job_id)
        if known is not None:
            found[job_id] = datetime.fromtimestamp(known / 1000, UTC)
    return found


def _job_id(message: bytes | None) -> str | None:
    if message is None:
        return None
    try:
        found = json.loads(message)["headers"]["id"]
    except (ValueError, KeyError, TypeError):
        return None  # no message of Celery's; a worker will make a dead letter of it
    return found if isinstance(found, str) else None


def _made_at(job_id: str) -> int | None:
    """Return the Unix milliseconds that an id of our own begins with."""
    try:
        parsed = UUID(job_id)
    except ValueError:
        return None
    return parsed.int >> 80 if parsed.version == _TIMED_VERSION else None
