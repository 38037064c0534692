"""The sign of life that each process leaves in Redis, under a key of its own (`jobs.wire`).

Invariant: it is written by the loop that does the work, so that it stops where that loop stops,
even if the process is still there. It says nothing about a single job.
"""

import json
import os
import socket
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks
from redis import Redis
from redis.exceptions import RedisError

from samplemind.jobs.wire import HEARTBEAT_LIFE_S, heartbeat_key
from samplemind.log import get_logger
from samplemind.settings import get_settings
from worker.broker import connect_broker

PACE_S = 5

_log = get_logger(__name__)


def beat(client: Redis, role: str, queues: Iterable[str]) -> None:
    """Leave a sign of life that lasts `HEARTBEAT_LIFE_S` seconds."""
    pid, host = os.getpid(), socket.gethostname()
    value = {
        "role": role,
        "pid": pid,
        "host": host,
        "time": datetime.now(UTC).isoformat(),
        "queues": sorted(queues),
    }
    try:
        client.set(heartbeat_key(role, host, pid), json.dumps(value), ex=HEARTBEAT_LIFE_S)
    except RedisError as error:
        # A sign that could not be left is missed by whoever looks for it, which is its purpose.
        _log.warning("heartbeat_not_written", error=str(error))


class Heartbeat(bootsteps.StartStopStep):
    """Beats from the main loop of a worker; its role is the first part of its node name."""

    requires = (Tasks,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._client: Redis | None = None
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        """Beat from now on; called at every connection."""
        self._client = self._client or connect_broker(get_settings().broker)
        role = consumer.hostname.partition("@")[0]
        arguments = (self._client, role, tuple(consumer.app.amqp.queues.consume_from))
        beat(*arguments)
        self._timer = consumer.timer.call_repeatedly(PACE_S, beat, arguments)

    def stop(self, consumer: Any) -> None:
        """Beat no more until the next connection."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def shutdown(self, consumer: Any) -> None:
        """Close the client; the last sign lapses by itself."""
        if self._client is not None:
            self._client.close()
