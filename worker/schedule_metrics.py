"""Metrics of the periodic jobs, on the console's `/metrics` beside Flower's own.

Invariant: a scrape asks nothing of the stores: a thread of its own renews the figures, and what it
could not renew is told by the age of the last time that it could.
"""

import asyncio
import threading
import time
from datetime import UTC, datetime

from prometheus_client import Gauge

from samplemind.connections.resources import Connections
from samplemind.errors import SampleMindError
from samplemind.log import get_logger
from samplemind.maintenance.watchdog import ScheduleStanding, Standing, schedule_standing
from samplemind.settings import Settings

_PACE_S = 30.0

_OVERDUE = Gauge("samplemind_periodic_overdue", "1 where a periodic job is overdue", ["job"])
_FAILING = Gauge("samplemind_periodic_failing", "1 where its last run failed", ["job"])
_SECONDS = Gauge("samplemind_periodic_last_seconds", "Seconds of its last run", ["job"])
_LEADS = Gauge("samplemind_beat_leads", "1 where a beat holds the lease")
_RENEWED = Gauge("samplemind_periodic_renewed_timestamp", "When these figures were read last")

_log = get_logger(__name__)


def start(settings: Settings) -> None:
    """Renew the figures from now on, in a daemon thread."""
    threading.Thread(
        target=_renew_forever, args=(settings,), name="schedule-metrics", daemon=True
    ).start()


def show(found: ScheduleStanding) -> None:
    """Set the figures to what was found."""
    _LEADS.set(found.beat_leads)
    for job in found.jobs:
        _OVERDUE.labels(job.name).set(job.standing is Standing.OVERDUE)
        _FAILING.labels(job.name).set(job.standing is Standing.FAILING)
        if job.last_seconds is not None:
            _SECONDS.labels(job.name).set(job.last_seconds)
    _RENEWED.set_to_current_time()


def _renew_forever(settings: Settings) -> None:
    while True:
        try:
            show(asyncio.run(_read(settings)))
        except SampleMindError as error:
            _log.warning("schedule_metrics_not_renewed", error=str(error))
        time.sleep(_PACE_S)


async def _read(settings: Settings) -> ScheduleStanding:
    async with Connections(settings, worker=True) as connections:
        return await schedule_standing(connections, datetime.now(UTC))
