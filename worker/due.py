"""Moves delayed jobs into their queues when their time has come.

Celery's own ETA has a worker take the message at once and hold it in memory for the time: it counts
as running, its lease is renewed for days, and a thousand of them fill the worker. Here they wait in
a sorted set, where they can be cancelled, and any worker of any role moves what is due.

Invariant: the move of one job is one step on the server, so no job is lost or doubled, however many
workers look; a job starts at most a second late while a worker lives.
"""

from typing import Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks
from redis import Redis
from redis.exceptions import RedisError

from samplemind.jobs.state import RELEASE
from samplemind.log import get_logger
from samplemind.settings import get_settings
from worker.broker import connect_broker

_PACE_S = 0.5
_JOBS_AT_ONCE = 500

_log = get_logger(__name__)


class DueJobs(bootsteps.StartStopStep):
    """Looks twice a second, from the worker's main loop."""

    requires = (Tasks,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer: Any = None
        self._client: Redis | None = None

    def start(self, consumer: Any) -> None:
        """Look from now on; called at every connection."""
        self._client = self._client or connect_broker(get_settings().broker)
        self._timer = consumer.timer.call_repeatedly(_PACE_S, self._move)

    def stop(self, consumer: Any) -> None:
        """Look no more until the next connection."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _move(self) -> None:
        if self._client is None:
            return
        try:
            self._client.eval(RELEASE, 0, str(_JOBS_AT_ONCE))
        except RedisError as error:
            # The next look is half a second away; the jobs wait where they are.
            _log.info("due_jobs_not_moved", error=str(error))
