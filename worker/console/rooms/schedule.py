"""Schedule: what recurs, how each job last went and when it runs next; running one now."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar

from samplemind.connections.resources import Connections
from samplemind.jobs.manual import find_periodic, run_now
from samplemind.jobs.periodic import MANUAL, Periodic
from samplemind.maintenance.watchdog import (
    PROBLEMS,
    JobStanding,
    ScheduleStanding,
    Standing,
    schedule_standing,
)
from samplemind.models.periodic_run import PeriodicRun
from samplemind.repositories.periodic_runs import PeriodicRunRepository, RunOutcome
from worker.console import wording
from worker.console.reading import Panel, Reading, Subject
from worker.console.room import Action, Outcome, Page, Room

_NAME = r"([a-z_]+\.[a-z_]+)"
_RUNS = 100

_LOOKS = {
    Standing.ON_TIME: "success",
    Standing.RUNNING: "active",
    Standing.NEVER_RUN: "muted",
    Standing.OVERDUE: "danger",
    Standing.FAILING: "danger",
}


class SchedulePage(Page):
    """Every periodic job, those in trouble first."""

    template, room = "schedule.html", "schedule"

    def panels(self, *_: str) -> Mapping[str, Panel]:
        """Read how every job stands."""
        return {
            "schedule": Panel(partial(_standing, self.connections), Subject.SCHEDULE, fresh_s=2)
        }

    def facts(self, readings: Mapping[str, Reading]) -> Mapping[str, Any]:
        """Return the jobs in the order in which an operator wants them."""
        schedule = readings["schedule"]
        jobs = in_order(schedule.value) if schedule.ready else []
        return {
            "jobs": jobs,
            "problems": [job for job in jobs if job.standing in PROBLEMS],
            "upcoming": min((job.next_at for job in jobs), default=None),
            "look_of": _LOOKS.__getitem__,
            "figures_of": figures_of,
        }


class PeriodicJobPage(Page):
    """One periodic job: what it is, and its last runs."""

    template, room = "periodic_job.html", "schedule"

    def panels(self, *arguments: str) -> Mapping[str, Panel]:
        """Read its entry, how it stands and its runs."""
        name = arguments[0]
        return {
            "entry": Panel(partial(find_periodic, self.connections, name), key=(name,), fresh_s=5),
            "schedule": Panel(partial(_standing, self.connections), Subject.SCHEDULE, fresh_s=2),
            "runs": Panel(
                partial(_runs, self.connections, name), Subject.SCHEDULE, key=(name,), fresh_s=2
            ),
        }

    def facts(self, readings: Mapping[str, Reading]) -> Mapping[str, Any]:
        """Return how it stands, and its runs as a chart draws them."""
        name = self.path_args[0]
        schedule, runs = readings["schedule"], readings["runs"]
        jobs = schedule.value.jobs if schedule.ready else ()
        return {
            "name": name,
            "job": next((job for job in jobs if job.name == name), None),
            "chart": chart(runs.value) if runs.ready else None,
            "look_of": _LOOKS.__getitem__,
            "run_state": run_state,
            "sent_by": sent_by,
            "figures_of": figures_of,
        }


class RunNow(Action):
    """Runs a periodic job beside its schedule."""

    action = "console.run_periodic_job"
    resource_kind: ClassVar[str] = "periodic_job"
    changes = (Subject.SCHEDULE, Subject.JOBS)
    question = "Run this job now? Its next run stays as it is."

    async def act(self, *arguments: str) -> Outcome:
        """Send it as beat would."""
        entry: Periodic = await find_periodic(self.connections, arguments[0])
        job_id = await run_now(self.connections, entry)
        return Outcome(
            f"{entry.name} was sent to the queue {entry.queue}; its run shows here once a worker "
            "begins it.",
            details={"job_id": job_id},
        )


def in_order(found: ScheduleStanding) -> list[JobStanding]:
    """Return the jobs in trouble first, then those that run, then the rest by name."""
    return sorted(
        found.jobs,
        key=lambda job: (
            job.standing not in PROBLEMS,
            job.standing is not Standing.RUNNING,
            job.name,
        ),
    )


def chart(runs: list[PeriodicRun]) -> dict[str, Any]:
    """Return how long each run that ended took, the oldest first."""
    ended = [(run.started_at, run.seconds) for run in reversed(runs) if run.seconds is not None]
    # Most jobs take milliseconds, and a line along the bottom tells nothing.
    scale, unit = (1, "s") if any(seconds >= 1 for _, seconds in ended) else (1000, "ms")
    return {
        "x": [round(started_at.timestamp(), 3) for started_at, _ in ended],
        "series": [{"label": "took", "values": [round(scale * s, 3) for _, s in ended]}],
        "unit": unit,
    }


def run_state(run: PeriodicRun) -> tuple[str, str]:
    """Return how a run looks, and its word."""
    if run.ended_at is None:
        return "active", "running"
    looks = {
        RunOutcome.SUCCEEDED.value: "success",
        RunOutcome.FAILED.value: "danger",
        RunOutcome.RETRIED.value: "warning",
    }
    return looks.get(run.outcome or "", "muted"), run.outcome or "ended"


def sent_by(run: PeriodicRun) -> str:
    """Return who wanted a run."""
    return "an operator" if run.slot.startswith(MANUAL) else "beat"


def figures_of(figures: Mapping[str, Any] | None) -> str:
    """Return what a run told of itself, in a line."""
    return ", ".join(
        f"{wording.words(name)} {_figure(value)}" for name, value in (figures or {}).items()
    )


def _figure(value: object) -> str:
    if isinstance(value, list | dict):
        return str(len(value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:g}" if isinstance(value, float) else wording.number(value)


async def _standing(connections: Connections) -> ScheduleStanding:
    return await schedule_standing(connections, datetime.now(UTC))


async def _runs(connections: Connections, name: str) -> list[PeriodicRun]:
    async with connections.postgres.session() as session:
        return list(await PeriodicRunRepository(session).newest(name, limit=_RUNS))


ROOM = Room(
    "schedule",
    "Schedule",
    (
        ("/schedule", SchedulePage),
        (f"/schedule/{_NAME}", PeriodicJobPage),
        (f"/schedule/{_NAME}/run", RunNow),
    ),
)
