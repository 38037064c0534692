"""How a worker leaves: it takes nothing new, lets running jobs end, and gives the rest back.

The first SIGTERM, SIGINT or SIGHUP starts the drain. The worker leaves when its last job has ended,
or after `worker.drain_s` seconds, when the processes of unfinished jobs are killed and their
messages go back to the queue at once. A second signal ends the waiting.

Celery's soft shutdown sleeps its whole time inside the signal handler, even if the last job ends
meanwhile, and notices no job that does. Here the handler only sets a flag; the main loop goes on,
acknowledges what ends, and looks at the flag twice a second.

Invariant: a message is given back only after the process that ran its job is dead, and being given
back by a drain does not count as a delivery that killed its worker.
"""

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

from celery import bootsteps
from celery.worker import state
from celery.worker.consumer.tasks import Tasks

from samplemind.log import get_logger
from samplemind.settings import get_settings
from worker import deliveries
from worker.broker import connect_broker

_PACE_S = 0.5
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_log = get_logger(__name__)


@dataclass
class _Orders:
    """What the signals said so far; written by the handler, read by the loop."""

    signals: int = 0


class Drain(bootsteps.StartStopStep):
    """Watches for the order to leave, from the worker's main loop."""

    requires = (Tasks,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._orders = _Orders()
        self._deadline: float | None = None
        self._timer: Any = None
        self._main_pid = os.getpid()

    def start(self, consumer: Any) -> None:
        """Take over the signals from Celery; called at every connection."""
        for number in _SIGNALS:
            signal.signal(number, self._note)
        self._timer = consumer.timer.call_repeatedly(_PACE_S, self._look, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Look no more until the next connection."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _note(self, *_: object) -> None:
        if os.getpid() != self._main_pid:
            return
        self._orders.signals += 1
        if self._timer is None:
            # There is no connection, so nothing can be acknowledged or given back: leases lapse.
            state.should_terminate = os.EX_OK

    def _look(self, consumer: Any) -> None:
        if not self._orders.signals:
            return
        if self._deadline is None:
            self._begin()
        consumer.task_consumer.cancel()  # also what a reconnect took up again
        busy = bool(state.active_requests or state.reserved_requests)
        if not busy:
            _log.info("drained")
            state.should_stop = os.EX_OK
        elif self._orders.signals > 1 or time.monotonic() >= (self._deadline or 0.0):
            give_up_running_jobs(consumer)
            state.should_terminate = os.EX_OK

    def _begin(self) -> None:
        seconds = get_settings().worker.drain_s
        self._deadline = time.monotonic() + seconds
        _log.info("draining", seconds=seconds, running=len(state.active_requests))


def give_up_running_jobs(consumer: Any) -> None:
    """Kill the processes of unfinished jobs; closing the channel then gives the messages back."""
    unfinished = [request for request in tuple(state.active_requests) if not request.acknowledged]
    counted = [
        request.id for request in unfinished if deliveries.was_redelivered(request.delivery_info)
    ]
    with connect_broker(get_settings().broker) as client:
        deliveries.forgive(client, counted)
    for request in unfinished:
        _log.warning("job_given_back", job=request.name, job_id=request.id)
        request.cancel(consumer.pool, signal="SIGKILL", emit_retry=False)
