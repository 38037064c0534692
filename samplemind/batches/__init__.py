"""A batch of files as a state machine over its items.

    pending ───claim──▶ claimed ───record──▶ done | failed | skipped
       ▲                   │                          │
       ├──release, rescue──┘                          │
       └──────────────────────retry───────────────────┘
    pending | claimed ───cancel──▶ cancelled

What is done with an item is the batch's kind (`kind`); which items are handed to the queue, and
when, is decided by `feeding`.

Every function may run twice, at once or after a crash between any two of its steps, and counts
once. What makes it so: an item ends in one write that compares its claim's token; results and
files have ids that follow from their content and path; the write that ends a batch compares the
state and epoch that were counted. Nothing here knows Celery.
"""

from samplemind.batches.callbacks import send_callback, send_callbacks
from samplemind.batches.chunks import Analyzer, ChunkReport, analyze_chunk
from samplemind.batches.claims import Claim, ClaimedItem, claim, extend, release
from samplemind.batches.counting import Progress, progress, progress_of
from samplemind.batches.feeding import HandedOut, feed, feed_all, hand_out
from samplemind.batches.kind import Kind, Work, add_kind, find_kind, kind_names
from samplemind.batches.lifecycle import (
    FailedItem,
    cancel,
    failed_items,
    finish,
    pause,
    resume,
    retry_failed,
)
from samplemind.batches.outcomes import ItemOutcome
from samplemind.batches.planning import BatchPlan, Subject, plan
from samplemind.batches.recording import Recorded, record
from samplemind.batches.rescue import republish, stalled
from samplemind.batches.running import Run
from samplemind.batches.working import work_chunk

__all__ = [
    "Analyzer",
    "BatchPlan",
    "ChunkReport",
    "Claim",
    "ClaimedItem",
    "FailedItem",
    "HandedOut",
    "ItemOutcome",
    "Kind",
    "Progress",
    "Recorded",
    "Run",
    "Subject",
    "Work",
    "add_kind",
    "analyze_chunk",
    "cancel",
    "claim",
    "extend",
    "failed_items",
    "feed",
    "feed_all",
    "find_kind",
    "finish",
    "hand_out",
    "kind_names",
    "pause",
    "plan",
    "progress",
    "progress_of",
    "record",
    "release",
    "republish",
    "resume",
    "retry_failed",
    "send_callback",
    "send_callbacks",
    "stalled",
    "work_chunk",
]
