"""When jobs run: one entry a job, a sentence each.

Every job here may run twice or late without harm, so the entries expire before the next one is
due: after an outage one run catches up, not a queue of them.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from samplemind.jobs.payloads import (
    FoldVectors,
    IndexDirty,
    OptimizeSearch,
    Payload,
    ReconcileIndex,
    RefreshVocabulary,
    RescueBatches,
    WarmCache,
)
from samplemind.jobs.wire import queue_for


@dataclass(frozen=True, slots=True)
class Entry:
    """One recurring job: what, how often, and why."""

    payload: Payload
    every: timedelta
    reason: str

    def as_celery(self) -> dict[str, Any]:
        """Return the entry as Celery's beat wants it."""
        name = self.payload.job_name
        return {
            "task": name,
            "schedule": self.every,
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
        WarmCache(),
        timedelta(minutes=2),
        "Popular searches live five minutes: they are made anew before that, or after a flush.",
    ),
)

BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    entry.payload.job_name: entry.as_celery() for entry in ENTRIES
}
