"""Keeps the leases of the messages whose jobs this worker runs.

A lease lasts seconds, so that a worker that was killed is replaced within seconds; it is renewed
while the worker lives, so that a job may take hours and still runs once.

The renewal has a thread of its own in the main process. A job that keeps every core busy does not
stop it, nor does the main loop while it waits for Redis to come back: then the leases are renewed
at the first second in which Redis answers, before anybody else may judge them.

Invariant: the set of leases is drawn up by the main loop, which knows the jobs; the thread only
renews, and no longer than the loop shows signs of life. A loop that is stuck for good ends the
process, jobs first, so that the supervisor starts another. A worker that was frozen longer than a
lease says so when it wakes, and its late acknowledgements meet nothing (`worker.transport`).
"""

import contextlib
import os
import threading
import time
from typing import Any, NoReturn

import psutil
from celery import bootsteps
from celery.worker import state
from celery.worker.consumer.tasks import Tasks
from redis.exceptions import RedisError

from samplemind.log import get_logger
from samplemind.settings import BrokerSettings, get_settings
from worker.broker import connect_broker
from worker.ledger import ledger
from worker.metrics import catalogue, counting

_STOCK_S = 1.0
"""Seconds between two drawings-up; what is taken in between is held already."""

_STUCK_S = 60.0
"""Seconds without a drawing-up after which the main loop counts as stuck for good."""

_KILL_WAIT_S = 5

_log = get_logger(__name__)


class LeaseKeeper(bootsteps.StartStopStep):
    """Starts the renewal with the first connection and gives the rest back at the end."""

    requires = (Tasks,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._renewal: Renewal | None = None
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        """Draw up the leases from now on; called at every connection."""
        if self._renewal is None:
            self._renewal = Renewal(get_settings().broker)
            self._renewal.start()
        self._take_stock(consumer)
        self._timer = consumer.timer.call_repeatedly(_STOCK_S, self._take_stock, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Leave the leases as they are until the next connection."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._renewal is not None:
            self._renewal.loop_seen_at = None

    def shutdown(self, consumer: Any) -> None:
        """Give back what is left; the processes that ran it have ended."""
        ledger.leaving = True
        ledger.give_back(ledger.held - _unacknowledged(consumer))
        if self._renewal is not None:
            self._renewal.finish()

    def _take_stock(self, consumer: Any) -> None:
        # What this connection delivered, and jobs that outlived another one.
        running = {request.message.delivery_tag for request in tuple(state.active_requests)}
        ledger.hold(_unacknowledged(consumer) | running)
        if self._renewal is not None:
            self._renewal.loop_seen_at = time.monotonic()


def _unacknowledged(consumer: Any) -> frozenset[str]:
    if consumer.task_consumer is None:
        return frozenset()
    qos = consumer.task_consumer.channel.qos
    return frozenset(qos._delivered).difference(qos._dirty)


class Renewal(threading.Thread):
    """Renews at a fixed pace, and tells Redis what it could not be told before."""

    def __init__(self, broker: BrokerSettings) -> None:
        super().__init__(name="lease-renewal", daemon=True)
        self._lease_s = broker.lease_s
        self._pace_s = broker.lease_renewal_s
        self._client = connect_broker(broker)
        self._ended = threading.Event()
        self._renewed_at = time.monotonic()
        self._held = 0
        self._watch = LoopWatch(2.0 * self._pace_s)
        self.loop_seen_at: float | None = None
        """When the main loop last drew up the leases; none while it waits for a connection."""

    def run(self) -> None:
        """Go on until `finish`."""
        while not self._ended.wait(self._pace_s):
            self.run_once()

    def run_once(self) -> None:
        """Renew now; leave if the main loop is stuck."""
        if self._watch.unseen_s(self.loop_seen_at, time.monotonic()) > _STUCK_S:
            _log.critical("main_loop_stuck", consequence="it ends; its jobs are given to others")
            self._leave()
        try:
            ledger.tell(self._client)
            ledger.renew(self._client)
        except RedisError as error:
            _log.warning("leases_not_renewed", error=str(error))
            return
        now = time.monotonic()
        if self._held and now - self._renewed_at > self._lease_s:
            seconds = round(now - self._renewed_at, 1)
            counting.add(catalogue.LEASES_LAPSED, by=self._held)
            _log.warning("leases_lapsed", seconds=seconds, messages=self._held)
        self._renewed_at, self._held = now, len(ledger.held)

    def _leave(self) -> NoReturn:
        # The processes of its jobs first: what is given back must not run here any more.
        jobs = psutil.Process().children(recursive=True)
        for job in jobs:
            with contextlib.suppress(psutil.NoSuchProcess):
                job.kill()
        psutil.wait_procs(jobs, timeout=_KILL_WAIT_S)
        ledger.give_back(ledger.held)
        ledger.try_to_tell(self._client)
        # Only this ends a process whose main thread does nothing any more.
        os._exit(os.EX_SOFTWARE)

    def finish(self) -> None:
        """Stop renewing, and tell what is left if Redis is there."""
        self._ended.set()
        self.join(timeout=2 * self._pace_s)
        if not ledger.try_to_tell(self._client):
            _log.warning("broker_not_told", consequence="its leases lapse by themselves")
        self._client.close()


class LoopWatch:
    """Counts how long the main loop has been silent while this process itself was running."""

    def __init__(self, longest_step_s: float) -> None:
        """A step between two looks counts as `longest_step_s` at most: the rest, it was frozen."""
        self._longest_step_s = longest_step_s
        self._seen_at: float | None = None
        self._looked_at = 0.0
        self._unseen_s = 0.0

    def unseen_s(self, seen_at: float | None, now: float) -> float:
        """Return the seconds of silence.

        Args:
            seen_at: when the loop last showed itself; none: nothing is expected of it.
            now: the moment of this look, of the same monotonic clock.
        """
        if seen_at is None or seen_at != self._seen_at:
            self._unseen_s = 0.0
        else:
            self._unseen_s += min(now - self._looked_at, self._longest_step_s)
        self._seen_at, self._looked_at = seen_at, now
        return self._unseen_s
