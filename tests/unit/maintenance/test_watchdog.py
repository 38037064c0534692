from datetime import UTC, datetime, timedelta

import pytest

from samplemind.jobs.periodic import Periodic
from samplemind.jobs.times import parse_when
from samplemind.maintenance.watchdog import Standing, judge
from samplemind.models.periodic_run import PeriodicRun
from worker.beat_watch import SILENT_S, Silence

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def entry(when: str, *, known_for: timedelta = timedelta(days=30)) -> Periodic:
    return Periodic("a.job", parse_when(when), "Because.", "default", since=NOW - known_for)


def ran(ago: timedelta, outcome: str | None = "succeeded") -> PeriodicRun:
    ended = NOW - ago + timedelta(seconds=1) if outcome else None
    return PeriodicRun(name="a.job", started_at=NOW - ago, ended_at=ended, outcome=outcome)


@pytest.mark.parametrize(
    ("job", "last", "ended", "expected"),
    [
        (entry("10s"), ran(timedelta(seconds=8)), ran(timedelta(seconds=8)), Standing.ON_TIME),
        (entry("10s"), ran(timedelta(minutes=3)), ran(timedelta(minutes=3)), Standing.OVERDUE),
        (entry("10s"), None, None, Standing.OVERDUE),
        (entry("0 3 * * *", known_for=timedelta(hours=2)), None, None, Standing.NEVER_RUN),
        # Due half an hour ago, and it may wait longer for others of its queue.
        (entry("30 11 * * *"), ran(timedelta(hours=24)), None, Standing.ON_TIME),
        (entry("0 10 * * *"), ran(timedelta(hours=26)), None, Standing.OVERDUE),
        (entry("0 3 * * *"), ran(timedelta(hours=9), None), None, Standing.RUNNING),
        (
            entry("0 3 * * *"),
            ran(timedelta(hours=9), "failed"),
            ran(timedelta(hours=9), "failed"),
            Standing.FAILING,
        ),
    ],
)
def test_a_job_is_judged_by_its_slots_and_its_last_end(job, last, ended, expected):
    assert judge(job, last, ended, NOW) is expected


def test_a_silent_beat_is_told_once_and_its_return_too():
    silence = Silence(0.0)
    assert silence.hear(leads=False, now=SILENT_S - 1) is None
    assert silence.hear(leads=False, now=SILENT_S) == "beat_silent"
    assert silence.hear(leads=False, now=SILENT_S * 2) is None
    assert silence.hear(leads=True, now=SILENT_S * 2 + 1) == "beat_is_back"
    assert silence.hear(leads=True, now=SILENT_S * 9) is None
