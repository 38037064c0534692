"""The sign of life that each process leaves in Redis, under a key of its own (`jobs.wire`).

Invariant: it is written by the loop that does the work, so that it stops where that loop stops,
even if the process is still there. It says nothing about a single job; of a worker it says whether
it takes what waits for it (`worker.health`).
"""

import json
import os
import socket
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from celery import bootsteps
from celery.worker import state
from celery.worker.consumer.tasks import Tasks
from redis import Redis
from redis.exceptions import RedisError

from samplemind.jobs.wire import HEARTBEAT_LIFE_S, heartbeat_key, queue_keys
from samplemind.log import get_logger
from samplemind.settings import get_settings
from worker.broker import connect_broker
from worker.health import Health
from worker.metrics.worker_page import render_worker
from worker.roles import run_directory

PACE_S = 5

_log = get_logger(__name__)


def beat(
    client: Redis,
    role: str,
    queues: Iterable[str],
    *,
    problem: str | None = None,
    address: str | None = None,
) -> None:
    """Leave a sign of life that lasts `HEARTBEAT_LIFE_S` seconds.

    Args:
        problem: what keeps the process from its work; None: nothing.
        address: where its health can be asked for.
    """
    pid, host = os.getpid(), socket.gethostname()
    value = {
        "role": role,
        "pid": pid,
        "host": host,
        "time": datetime.now(UTC).isoformat(),
        "queues": sorted(queues),
        "problem": problem,
        "address": address,
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
        settings = get_settings()
        self._client = connect_broker(settings.broker)
        self._health = Health(
            run_directory(settings) / f"health-{consumer.hostname}.json",
            settings.worker.health_host,
            settings.worker.health_port,
            render=render_worker,
            token=settings.metrics.bearer(),
        )
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        """Beat from now on; called at every connection."""
        self._beat(consumer)
        self._timer = consumer.timer.call_repeatedly(PACE_S, self._beat, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Beat no more until the next connection."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._health.disconnected()

    def shutdown(self, consumer: Any) -> None:
        """Close the client; the last sign lapses by itself."""
        self._client.close()

    def _beat(self, consumer: Any) -> None:
        queues = tuple(consumer.app.amqp.queues.consume_from)
        try:
            waiting = self._count_waiting(queues)
        except RedisError as error:
            _log.warning("heartbeat_not_written", error=str(error))
            return
        problem = self._health.look(
            waiting=waiting,
            free=consumer.pool.num_processes - len(state.reserved_requests),
            taken=sum(state.total_count.values()),
        )
        role = consumer.hostname.partition("@")[0]
        beat(self._client, role, queues, problem=problem, address=self._health.address)

    def _count_waiting(self, queues: Iterable[str]) -> int:
        with self._client.pipeline(transaction=False) as pipe:
            for queue in queues:
                for key in queue_keys(queue):
                    pipe.llen(key)
            return sum(pipe.execute())
