"""What is wrong, first; then every store, queue, process and periodic job at a glance."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from samplemind.backup.catalog import Catalog, CatalogEntry
from samplemind.backup.keys import load_keyring
from samplemind.connections.resources import Connections
from samplemind.embedded.services import Service, list_processes, list_stores
from samplemind.jobs.standing import BrokerStanding, broker_standing
from samplemind.maintenance.watchdog import (
    PROBLEMS,
    JobStanding,
    ScheduleStanding,
    schedule_standing,
)
from samplemind.models.dead_letter import DeadLetterState
from samplemind.repositories.batch_jobs import BatchJobRepository
from samplemind.repositories.dead_letters import DeadLetterRepository, LetterFilter
from samplemind.search.dirty import IndexLag, index_lag
from samplemind.settings import Settings
from samplemind.storage.opening import open_store
from worker.console import wording
from worker.console.reading import Panel, Reading, Subject
from worker.console.room import Page, Problem, Room
from worker.console.threads import Place

_NIGHT = timedelta(hours=24)
_LONG_PERIOD = timedelta(hours=1)


class OverviewPage(Page):
    """The first page."""

    template, room = "overview.html", "overview"

    def panels(self, *_: str) -> Mapping[str, Panel]:
        """Read every store at once; none waits for another."""
        connections, wait_for = self.connections, self.threads.run
        settings = connections.settings
        return {
            "stores": Panel(
                partial(wait_for, Place.HEALTH, partial(list_stores, settings)), fresh_s=4
            ),
            "processes": Panel(
                partial(wait_for, Place.HEALTH, partial(list_processes, settings)), fresh_s=4
            ),
            "queues": Panel(lambda: broker_standing(connections.broker), Subject.JOBS),
            "schedule": Panel(
                lambda: schedule_standing(connections, datetime.now(UTC)),
                Subject.SCHEDULE,
                fresh_s=4,
            ),
            "lag": Panel(lambda: index_lag(connections.broker)),
            "letters": Panel(lambda: _count_letters(connections), Subject.LETTERS, fresh_s=4),
            "batches": Panel(lambda: _count_batches(connections), Subject.BATCHES, fresh_s=4),
            "backup": Panel(
                partial(wait_for, Place.STORAGE, partial(_newest_backup, settings)),
                fresh_s=60,
                timeout_s=20,
                mend="look at the settings of the storage: `samplemind backup list`",
            ),
        }

    def facts(self, readings: Mapping[str, Reading]) -> Mapping[str, Any]:
        """Return what is wrong, what could not be read, and how the queues were."""
        schedule = readings["schedule"]
        return {
            "problems": find_problems(readings),
            "silent": sorted(name for name, reading in readings.items() if reading.problem),
            "runs": nightly(schedule.value, datetime.now(UTC)) if schedule.ready else [],
            "depths": self.application.depths.chart(),
        }


def find_problems(readings: Mapping[str, Reading]) -> list[Problem]:
    """Return what is wrong, the worst first; pure, so that a test can ask it anything."""
    judges: tuple[tuple[str, Callable[[Any], Sequence[Problem]]], ...] = (
        ("stores", _judge_services),
        ("processes", _judge_services),
        ("schedule", _judge_schedule),
        ("backup", _judge_backup),
        ("queues", _judge_queues),
        ("letters", _judge_letters),
        ("lag", _judge_lag),
    )
    found = [
        problem
        for name, judge in judges
        if readings[name].ready
        for problem in judge(readings[name].value)
    ]
    # A store that is away is told once, not by each panel that it leaves empty.
    return sorted(found, key=lambda problem: problem.state != "danger")


def nightly(found: ScheduleStanding, now: datetime) -> list[JobStanding]:
    """Return the periodic jobs that run at night, those in trouble first."""
    rare = [
        job
        for job in found.jobs
        if job.standing in PROBLEMS
        or job.next_at - (job.last_started_at or now - _NIGHT) >= _LONG_PERIOD
    ]
    return sorted(rare, key=lambda job: (job.standing not in PROBLEMS, job.name))


def _judge_services(found: Sequence[Service]) -> list[Problem]:
    return [
        Problem("danger", f"{service.name}: {service.detail}", "`samplemind doctor`")
        for service in found
        if not service.healthy and service.name != "console"
    ]


def _judge_schedule(found: ScheduleStanding) -> list[Problem]:
    if not found.jobs:
        return [Problem("warning", "No beat has left a schedule yet", "start the role beat")]
    problems = [
        Problem(
            "danger",
            f"{job.name} is {wording.words(job.standing.value)}"
            + (f": {job.last_error}" if job.last_error else ""),
            f"`samplemind schedule run {job.name}`",
            f"/schedule/{job.name}",
        )
        for job in found.problems
    ]
    if not found.beat_leads:
        problems.append(
            Problem(
                "danger",
                "No beat leads: nothing periodic is sent",
                "start the role beat",
                "/schedule",
            )
        )
    return problems


def _judge_backup(found: CatalogEntry | None) -> list[Problem]:
    if found is None:
        mend = "`samplemind backup create`"
        return [Problem("danger", "There is no good backup", mend, "/backups")]
    now = datetime.now(UTC)
    if not found.is_old(now):
        return []
    old = wording.duration((now - found.started_at).total_seconds())
    text = f"The newest backup is {old} old"
    return [Problem("danger", text, "`samplemind backup create`", "/backups")]


def _judge_queues(found: BrokerStanding) -> list[Problem]:
    return [
        Problem(
            "warning",
            f"{each.queue.value}: {wording.number(each.messages)} messages wait, the oldest for "
            f"{wording.duration(each.oldest_s)}",
            "start more workers of that queue, or look at what they do",
            "/workers",
        )
        for each in found.queues
        if each.is_late
    ]


def _judge_letters(count: int) -> list[Problem]:
    if count == 0:
        return []
    text = f"{wording.number(count)} {'job' if count == 1 else 'jobs'} failed for good"
    return [Problem("warning", text, "replay or discard them", "/failed-jobs")]


def _judge_lag(found: IndexLag) -> list[Problem]:
    if not found.is_late:
        return []
    text = f"The index is {wording.duration(found.oldest_s)} behind ({found.waiting} files)"
    return [Problem("warning", text, "`samplemind index reconcile`", "/search")]


async def _count_letters(connections: Connections) -> int:
    async with connections.postgres.session() as session:
        chosen = LetterFilter(state=DeadLetterState.OPEN)
        return await DeadLetterRepository(session).count(chosen)


async def _count_batches(connections: Connections) -> int:
    await connections.documents()
    return len(await BatchJobRepository().list_open())


def _newest_backup(settings: Settings) -> CatalogEntry | None:
    store = open_store(settings.storage, settings.home)
    try:
        entries = Catalog(store, load_keyring(settings.backup)).entries()
    finally:
        store.close()
    return next((entry for entry in entries if entry.good), None)


ROOM = Room("overview", "Overview", (("/overview", OverviewPage),))
