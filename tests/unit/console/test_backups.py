"""How the room of backups tells jobs and proofs."""

from datetime import UTC, datetime
from typing import Any

import pytest

from samplemind.backup.catalog import CatalogEntry, HistoryEvent
from samplemind.jobs.state import JobState, JobStatus
from worker.console.rooms.backups import evidence_of, job_progress, last_drill, time_line, verdict

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


def job(state: JobState, progress: dict[str, Any] | None = None, error: str | None = None) -> Any:
    return JobStatus(
        id="1",
        task="backups.create",
        state=state,
        attempts=1,
        enqueued_at=NOW,
        started_at=NOW,
        ended_at=None,
        worker=None,
        progress=progress,
        result=None,
        error=error,
        cancel_requested=False,
    )


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (job(JobState.WAITING), ("", None)),
        (job(JobState.RUNNING, {"phase": "rows", "done": 0, "total": None}), ("rows", None)),
        (
            job(JobState.RUNNING, {"phase": "rows", "done": 2**20, "total": None}),
            ("rows: 1.0 MiB", None),
        ),
        (
            job(JobState.RUNNING, {"phase": "rows", "done": 2**20, "total": 2**22}),
            ("rows: 1.0 MiB of 4.0 MiB", 0.25),
        ),
        (job(JobState.RUNNING, {"phase": "rows", "done": 9, "total": 3}), ("rows: 9 B of 3 B", 1)),
        (job(JobState.FAILED, {"done": 1}, error="no space left"), ("no space left", None)),
    ],
    ids=["waiting", "begun", "of unknown size", "a quarter", "more than expected", "failed"],
)
def test_a_job_tells_how_far_it_is(status: JobStatus, told: tuple[str, float | None]) -> None:
    assert job_progress(status) == told


def event(level: int, *, ok: bool, hour: int, **evidence: Any) -> HistoryEvent:
    return HistoryEvent.model_validate(
        {
            "backup_id": "b",
            "level": level,
            "at": NOW.replace(hour=hour),
            "ok": ok,
            "problems": () if ok else ("users differs",),
            "evidence": evidence,
        }
    )


def test_the_last_drill_is_shown_even_where_it_failed_and_speaks_against_the_backup() -> None:
    good, bad = event(4, ok=True, hour=1), event(4, ok=False, hour=2)
    entries = [
        CatalogEntry("a", None, None, NOW, latest=(good,)),
        CatalogEntry("b", None, None, NOW, latest=(bad,)),
    ]
    assert last_drill(entries) is bad
    assert verdict(entries[1]) == "level 4: users differs"
    assert last_drill([]) is None


def test_evidence_is_told_in_words_without_digests() -> None:
    found = event(4, ok=True, hour=1, recovery_s=61, writers_paused_ms=2.5, tables={"users": "9"})
    assert evidence_of(found) == (
        ("recovery", "1 min 1 s"),
        ("writers paused", "2.5 ms"),
        ("tables", "1 compared"),
    )


def test_a_backup_that_cannot_be_read_has_a_strip_of_its_own() -> None:
    entry = CatalogEntry("a", None, "its signature is wrong", NOW)
    strips = time_line([entry], (), NOW, NOW - NOW.replace(day=21))
    assert [strip.name for strip in strips] == ["logical", "physical", "dump", "unreadable"]
    (mark,) = strips[-1].marks
    assert (mark.look, mark.at) == ("bad", 1000)
