"""Which periodic job is overdue or failing.

Invariant: the judgement is pure: a table, the last runs, a time. It is read from what beat left in
Redis and from the records of runs, so it is the same for `status`, `schedule list`, the metric and
the job that logs it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from samplemind.connections.redis import translating_errors
from samplemind.connections.resources import Connections
from samplemind.jobs.periodic import LEADER_KEY, TABLE_KEY, Periodic, read_table
from samplemind.log import get_logger
from samplemind.models.periodic_run import PeriodicRun
from samplemind.repositories.periodic_runs import PeriodicRunRepository, RunOutcome

_LEAST_GRACE = timedelta(minutes=1)
_MOST_GRACE = timedelta(hours=1)

_log = get_logger(__name__)


class Standing(StrEnum):
    """How a periodic job stands."""

    ON_TIME = "on_time"
    NEVER_RUN = "never_run"  # and not due yet
    RUNNING = "running"
    OVERDUE = "overdue"
    FAILING = "failing"


PROBLEMS = (Standing.OVERDUE, Standing.FAILING)


@dataclass(frozen=True, slots=True)
class JobStanding:
    """One line of `schedule list`."""

    name: str
    standing: Standing
    when: str
    reason: str
    queue: str
    last_started_at: datetime | None
    last_seconds: float | None
    last_outcome: str | None
    last_error: str | None
    figures: dict[str, Any] | None
    next_at: datetime
    late_s: float = 0.0
    """How long its last slot has not been started; 0: it was."""


@dataclass(frozen=True, slots=True)
class ScheduleStanding:
    """All of them, and which beat leads (`host:pid`); none: nothing periodic is sent."""

    leader: str | None
    jobs: tuple[JobStanding, ...]

    @property
    def beat_leads(self) -> bool:
        """Whether one leads."""
        return self.leader is not None

    @property
    def problems(self) -> tuple[JobStanding, ...]:
        """The jobs that are overdue or failing."""
        return tuple(job for job in self.jobs if job.standing in PROBLEMS)

    def summary(self) -> str:
        """Return one line for `status`."""
        if not self.jobs:
            return "no beat has left a table yet"
        lead = "" if self.beat_leads else "no beat leads; "
        if not self.problems:
            return f"{lead}{len(self.jobs)} periodic jobs on time"
        return lead + "; ".join(
            f"{job.name} is {job.standing.value}"
            + (f": {job.last_error}" if job.standing is Standing.FAILING and job.last_error else "")
            for job in self.problems
        )


def grace(entry: Periodic, now: datetime) -> timedelta:
    """Return how long after its slot a job may start: it may wait for others of its queue."""
    return max(_LEAST_GRACE, min(entry.period(now) / 2, _MOST_GRACE))


def judge(
    entry: Periodic, last: PeriodicRun | None, ended: PeriodicRun | None, now: datetime
) -> Standing:
    """Return how a job stands, given its last run and its last that ended for good."""
    due = entry.when.latest(now - grace(entry, now))
    started = last.started_at if last is not None else None
    known = entry.since is not None and entry.since < due
    if known and (started is None or started < due):
        return Standing.OVERDUE
    if ended is not None and ended.outcome == RunOutcome.FAILED.value:
        return Standing.FAILING
    if last is None:
        return Standing.NEVER_RUN
    return Standing.ON_TIME if last.ended_at is not None else Standing.RUNNING


def lateness_s(entry: Periodic, last: PeriodicRun | None, now: datetime) -> float:
    """Return for how many seconds the slot that is due by now has not been started."""
    due = entry.when.latest(now)
    if entry.since is None or entry.since >= due:
        return 0.0
    started = last is not None and last.started_at >= due
    return 0.0 if started else (now - due).total_seconds()


async def schedule_standing(connections: Connections, now: datetime) -> ScheduleStanding:
    """Return how every periodic job stands.

    Raises:
        StoreUnavailableError: Redis or PostgreSQL did not answer.
    """
    with translating_errors():
        stored = await connections.broker.hgetall(TABLE_KEY)
        token = await connections.broker.get(LEADER_KEY)
    table = read_table({_text(name): _text(entry) for name, entry in stored.items()})
    names = [entry.name for entry in table]
    async with connections.postgres.session() as session:
        runs = PeriodicRunRepository(session)
        latest, ended = await runs.latest(names), await runs.latest_ended(names)
    leader = None if token is None else _text(token).rpartition(":")[0]
    return ScheduleStanding(leader, tuple(_standings(table, latest, ended, now)))


async def watch(connections: Connections) -> dict[str, Any]:
    """Log each job that is overdue or failing; return how many there are of each."""
    found = await schedule_standing(connections, datetime.now(UTC))
    for job in found.problems:
        _log.error(
            "periodic_job_overdue" if job.standing is Standing.OVERDUE else "periodic_job_failing",
            job=job.name,
            last_started_at=str(job.last_started_at) if job.last_started_at else None,
            error=job.last_error,
        )
    return {
        standing.value: [job.name for job in found.problems if job.standing is standing]
        for standing in PROBLEMS
    }


def as_json(found: ScheduleStanding) -> dict[str, Any]:
    """Return what `schedule list --json` prints."""
    return {
        "beat_leads": found.beat_leads,
        "leader": found.leader,
        "jobs": [asdict(job) for job in found.jobs],
    }


def _standings(
    table: list[Periodic],
    latest: Mapping[str, PeriodicRun],
    ended: Mapping[str, PeriodicRun],
    now: datetime,
) -> list[JobStanding]:
    found = []
    for entry in table:
        last, end = latest.get(entry.name), ended.get(entry.name)
        told = last if last is not None and last.ended_at is not None else end
        found.append(
            JobStanding(
                name=entry.name,
                standing=judge(entry, last, end, now),
                when=str(entry.when),
                reason=entry.reason,
                queue=entry.queue,
                last_started_at=last.started_at if last else None,
                last_seconds=told.seconds if told else None,
                last_outcome=told.outcome if told else None,
                last_error=told.error if told else None,
                figures=told.figures if told else None,
                next_at=entry.when.following(now),
                late_s=lateness_s(entry, last, now),
            )
        )
    return found


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
