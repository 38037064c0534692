"""Whether periodic jobs run when they should, and what their last runs found."""

from datetime import UTC, datetime

from samplemind.connections.resources import Connections
from samplemind.jobs.payloads import ArchiveWal, ReconcileIndex
from samplemind.maintenance.watchdog import (
    JobStanding,
    ScheduleStanding,
    Standing,
    schedule_standing,
)
from samplemind.repositories.periodic_runs import RunOutcome
from worker.metrics import catalogue
from worker.metrics.page import Page

_DIFFERENCES = ("missing", "stale", "surplus", "ahead")


async def read_schedule(connections: Connections, page: Page) -> None:
    """Read how every periodic job stands."""
    put_schedule(page, await schedule_standing(connections, datetime.now(UTC)))


def put_schedule(page: Page, found: ScheduleStanding) -> None:
    """Note what was found."""
    page.put(catalogue.BEAT_LEADS, to=found.beat_leads)
    for job in found.jobs:
        page.put(catalogue.PERIODIC_OVERDUE, job.name, to=job.standing is Standing.OVERDUE)
        page.put(catalogue.PERIODIC_FAILING, job.name, to=job.standing is Standing.FAILING)
        page.put(catalogue.PERIODIC_LATE, job.name, to=job.late_s)
        if job.last_seconds is not None:
            page.put(catalogue.PERIODIC_SECONDS, job.name, to=job.last_seconds)
        if job.last_started_at is not None:
            started = job.last_started_at.timestamp()
            page.put(catalogue.PERIODIC_STARTED, job.name, to=started)
        _put_findings(page, job)


def _put_findings(page: Page, job: JobStanding) -> None:
    if job.last_started_at is None or job.last_outcome != RunOutcome.SUCCEEDED.value:
        return
    started = job.last_started_at.timestamp()
    if job.name == ReconcileIndex.job_name and job.figures:
        page.put(catalogue.INDEX_COMPARED, to=started)
        for difference in _DIFFERENCES:
            files = float(job.figures.get(difference, 0))
            page.put(catalogue.INDEX_DRIFT, difference, to=files)
    elif job.name == ArchiveWal.job_name and job.figures:
        page.put(catalogue.WAL_ARCHIVED, to=started)
