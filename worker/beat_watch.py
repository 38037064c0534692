"""Every worker notices when no beat leads: a dead beat cannot send the job that would tell.

Invariant: it only reads one key, and says so once when beats go silent and once when one is back.
"""

import time
from typing import Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks
from redis import Redis
from redis.exceptions import RedisError

from samplemind.jobs.periodic import LEADER_KEY, SLOTS_KEY
from samplemind.log import get_logger
from samplemind.settings import get_settings
from worker.broker import connect_broker

PACE_S = 10.0
SILENT_S = 30.0
"""Seconds without a leader after which one is missed; a replacement takes half of that."""

_log = get_logger(__name__)


class Silence:
    """Tells when nobody has led for `SILENT_S` seconds."""

    def __init__(self, now: float) -> None:
        self._heard = now
        self._told = False

    def hear(self, *, leads: bool, now: float) -> str | None:
        """Return the event that is to be logged now, if any."""
        if leads:
            self._heard = now
            told, self._told = self._told, False
            return "beat_is_back" if told else None
        if self._told or now - self._heard < SILENT_S:
            return None
        self._told = True
        return "beat_silent"


class BeatWatch(bootsteps.StartStopStep):
    """Looks for the leader's lease from the main loop of a worker."""

    requires = (Tasks,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._client: Redis | None = None
        self._silence = Silence(time.monotonic())
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        """Look from now on; called at every connection."""
        self._client = self._client or connect_broker(get_settings().broker)
        self._timer = consumer.timer.call_repeatedly(PACE_S, self._look, (self._client,))

    def stop(self, consumer: Any) -> None:
        """Look no more until the next connection."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def shutdown(self, consumer: Any) -> None:
        """Close the client."""
        if self._client is not None:
            self._client.close()

    def _look(self, client: Redis) -> None:
        try:
            # Where no beat ever ran, none is missed.
            leads = bool(client.exists(LEADER_KEY)) or not client.exists(SLOTS_KEY)
        except RedisError:
            return  # without Redis it is not beat that is missed
        event = self._silence.hear(leads=leads, now=time.monotonic())
        if event == "beat_silent":
            _log.error("beat_silent", seconds=SILENT_S)
        elif event:
            _log.info("beat_is_back")
