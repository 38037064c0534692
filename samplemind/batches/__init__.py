"""A batch of files as a state machine over its items.

    pending ───claim──▶ claimed ───record──▶ done | failed | skipped
       ▲                   │                          │
       ├──release, rescue──┘                          │
       └──────────────────────retry───────────────────┘
    pending | claimed ───cancel──▶ cancelled

Every function may run twice, at once or after a crash between any two of its steps, and counts
once. What makes it so: an item ends in one write that compares its claim's token; results and
files have ids that follow from their content and path; the write that ends a batch compares the
state and epoch that were counted. Nothing here knows Celery.
"""

from samplemind.batches.chunks import Analyzer, ChunkReport, analyze_chunk
from samplemind.batches.claims import Claim, ClaimedItem, claim, extend, release
from samplemind.batches.counting import Progress, progress
from samplemind.batches.lifecycle import (
    FailedItem,
    cancel,
    failed_items,
    finish,
    retry_failed,
)
from samplemind.batches.outcomes import ItemOutcome
from samplemind.batches.planning import BatchPlan, plan
from samplemind.batches.recording import Recorded, record
from samplemind.batches.rescue import republish, stalled
from samplemind.batches.running import Run

__all__ = [
    "Analyzer",
    "BatchPlan",
    "ChunkReport",
    "Claim",
    "ClaimedItem",
    "FailedItem",
    "ItemOutcome",
    "Progress",
    "Recorded",
    "Run",
    "analyze_chunk",
    "cancel",
    "claim",
    "extend",
    "failed_items",
    "finish",
    "plan",
    "progress",
    "record",
    "release",
    "republish",
    "retry_failed",
    "stalled",
]
