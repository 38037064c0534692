"""When jobs run: one entry a job, a sentence each.

Every job here may run twice or late without harm, so the entries expire before the next one is
due: after an outage one run catches up, not a queue of them.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from celery.schedules import crontab

from samplemind.jobs.payloads import (
    ArchiveWal,
    CreateBackup,
    DrillBackup,
    FoldVectors,
    IndexDirty,
    OptimizeSearch,
    Payload,
    PruneBackups,
    ReconcileIndex,
    RefreshVocabulary,
    RescueBatches,
    VerifyBackup,
)
from samplemind.jobs.wire import queue_for


@dataclass(frozen=True, slots=True)
class Entry:
    """One recurring job: what, how often, and why."""

    payload: Payload
    every: timedelta
    reason: str
    at: crontab | None = None
    """When, for what belongs into the night (UTC); none: every so often from the start of beat."""
    label: str = ""
    """Tells entries of one job apart."""

    @property
    def name(self) -> str:
        """The entry's name: that of its job, and the label where it has one."""
        job = self.payload.job_name
        return f"{job}:{self.label}" if self.label else job

    def as_celery(self) -> dict[str, Any]:
        """Return the entry as Celery's beat wants it."""
        name = self.payload.job_name
        return {
            "task": name,
            "schedule": self.at or self.every,
            "kwargs": self.payload.model_dump(mode="json"),
            "options": {
                "queue": queue_for(name).value,
                "expires": self.every.total_seconds(),
            },
        }


ENTRIES: tuple[Entry, ...] = (
    Entry(
        IndexDirty(),
        timedelta(seconds=10),
        "A drain is sent when a file becomes dirty; this one finds what that message lost.",
    ),
    Entry(
        RescueBatches(),
        timedelta(seconds=20),
        "Parts of a batch whose message was lost, or whose worker died, are published again.",
    ),
    Entry(
        ReconcileIndex(),
        timedelta(minutes=15),
        "The index is compared with the library and repaired, whatever events were lost.",
    ),
    Entry(
        FoldVectors(),
        timedelta(seconds=30),
        "New vectors are compared one by one until they are folded into the approximate index.",
    ),
    Entry(
        RefreshVocabulary(),
        timedelta(hours=1),
        "Corrections, suggestions and plans go by counts of the words that are indexed now.",
    ),
    Entry(
        OptimizeSearch(),
        timedelta(hours=24),
        "Dead rows slow every search, most of all those in the graph; recall is measured anew.",
    ),
    Entry(
        ArchiveWal(),
        timedelta(minutes=1),
        "Recovery to a moment loses a minute at most; does nothing where no archive was begun.",
    ),
    Entry(
        CreateBackup(),
        timedelta(hours=24),
        "Both stores at one moment, every night.",
        at=crontab(hour=1, minute=10),
    ),
    Entry(
        VerifyBackup(level=1),
        timedelta(hours=24),
        "Every byte of the newest backup is read and compared with its checksum.",
        at=crontab(hour=3, minute=10),
        label="nightly",
    ),
    Entry(
        PruneBackups(),
        timedelta(hours=24),
        "After the newest backup was verified, what retention no longer keeps is deleted.",
        at=crontab(hour=4, minute=10),
    ),
    Entry(
        VerifyBackup(level=3),
        timedelta(days=7),
        "The newest backup is restored into scratch servers: only then it is one.",
        at=crontab(day_of_week="sunday", hour=4, minute=40),
        label="weekly",
    ),
    Entry(
        DrillBackup(),
        timedelta(days=28),
        "Recovery to a random moment, measured and compared row by row, with evidence kept.",
        at=crontab(day_of_month="1", hour=5, minute=10),
    ),
)

BEAT_SCHEDULE: dict[str, dict[str, Any]] = {entry.name: entry.as_celery() for entry in ENTRIES}
