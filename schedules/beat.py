"""When jobs run: one entry a job, a sentence each.

Every job here may run twice or late without harm, so the entries expire before the next one is
due: after an outage one run catches up, not a queue of them.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from samplemind.jobs.payloads import (
    CollectDeadLetters,
    FoldVectors,
    IndexDirty,
    OptimizeSearch,
    Payload,
    ReconcileIndex,
    RefreshVocabulary,
    RescueBatches,
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
        CollectDeadLetters(),
        timedelta(seconds=15),
        "Dead letters are moved to where operators look, and replays that were cut short are sent.",
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
)

BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    entry.payload.job_name: entry.as_celery() for entry in ENTRIES
}
