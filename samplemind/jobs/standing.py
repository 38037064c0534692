"""How queues stand: how much waits in each, and for how long.

Invariant: it only reads, in one round trip, whatever the length of a queue.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import Redis

from samplemind.connections.redis import translating_errors
from samplemind.jobs.envelope import SENT_HEADER
from samplemind.jobs.letters import INBOX
from samplemind.jobs.state import DELAYED
from samplemind.jobs.wire import KEY_PREFIX, Queue, queue_keys

LATE_AFTER_S: Mapping[Queue, float] = {
    Queue.INTERACTIVE: 60.0,
    Queue.DEFAULT: 600.0,
    Queue.INDEX: 600.0,
    Queue.AUDIO: 7200.0,
    Queue.MAINTENANCE: 21_600.0,
}
"""Seconds after which a message has waited too long: a large batch keeps the queue of audio busy
for an hour, a backup the queue of maintenance for longer."""

_LEASES = f"{KEY_PREFIX}unacked_index"


@dataclass(frozen=True, slots=True)
class QueueStanding:
    """What waits in one queue; `oldest_s` is 0 where nothing does, or none says when it was sent"""

    queue: Queue
    messages: int
    oldest_s: float

    @property
    def is_late(self) -> bool:
        """Whether its oldest message has waited too long."""
        return self.oldest_s > LATE_AFTER_S[self.queue]


@dataclass(frozen=True, slots=True)
class BrokerStanding:
    """What the broker holds.

    Attributes:
        leased: messages that workers took and have not acknowledged.
        delayed: jobs that wait for their time.
        late_s: how long the first of those should have been in its queue; 0: none is late.
        inbox: dead letters that PostgreSQL does not have yet.
    """

    queues: tuple[QueueStanding, ...]
    leased: int
    delayed: int
    late_s: float
    inbox: int


async def broker_standing(broker: Redis) -> BrokerStanding:
    """Return how the queues stand.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """
    keys = {queue: queue_keys(queue.value) for queue in Queue}
    with translating_errors():
        async with broker.pipeline(transaction=False) as pipe:
            for queue in Queue:
                for key in keys[queue]:
                    pipe.llen(key)
                    # Producers push on the left, so the oldest is the last.
                    pipe.lindex(key, -1)
            pipe.zcard(_LEASES)
            pipe.zcard(DELAYED)
            pipe.zrange(DELAYED, 0, 0, withscores=True)
            pipe.xlen(INBOX)
            *answers, leased, delayed, first, inbox = await pipe.execute()
    now = time.time()
    found = iter(answers)
    queues = []
    for queue in Queue:
        lists = [(next(found), next(found)) for _ in keys[queue]]
        ages = [age_s(message, now) for _, message in lists if message is not None]
        queues.append(
            QueueStanding(queue, sum(int(length) for length, _ in lists), max(ages, default=0.0))
        )
    late_s = max(0.0, now - float(first[0][1]) / 1000) if first else 0.0
    return BrokerStanding(tuple(queues), int(leased), int(delayed), late_s, int(inbox))


def age_s(message: bytes, now: float) -> float:
    """Return how long a message has waited; 0 where it does not say since when."""
    try:
        headers = json.loads(message).get("headers") or {}
        return max(0.0, now - float(headers[SENT_HEADER]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0.0
