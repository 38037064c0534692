"""A batch: many files submitted at once.

Invariant: it is written after all of its items, so a batch that can be seen is whole. While it
runs, its counts are counted from the items and never kept beside them; the write that ends it
stores them. `epoch` rises when finished work is opened again, so that a caller who counted
before that cannot finish the batch after it. What is to be sent when the batch has finished stands
in the batch, so the write that ends it is also the promise to send it.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from beanie import Document
from pydantic import BaseModel, Field

from samplemind.documents.text import Name, StoredPath

MOST_ROOTS = 1000


class BatchState(StrEnum):
    """Where a batch stands."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"


OPEN_BATCHES = (BatchState.PENDING, BatchState.RUNNING, BatchState.PAUSED)
"""States in which a batch has not ended."""


class Callback(BaseModel):
    """A job to send when a batch has finished: its name, and its arguments as JSON."""

    name: Name
    arguments: dict[str, Any] = Field(default_factory=dict)


class BatchJob(Document):
    """One batch.

    Attributes:
        kind: what is done with each item, one of `samplemind.batches.kinds`.
        owner_id: whose files they become; None for the library's own.
        roots: the files and folders that were given.
        total: number of items.
        chunk_size: items in one job; chunk k holds the items k * chunk_size and on.
        counts: items by state once the batch ended; None while it runs.
        paused_at: since when it has been paused; None unless it is.
        paused_s: seconds of earlier pauses.
        callback: sent once, after the batch finished for the first time; never after a
            cancellation.
        callback_sent_at: when it was; None before.
    """

    id: UUID  # type: ignore[assignment]  # Beanie's own default is an ObjectId
    kind: Name = "analyze"
    owner_id: UUID | None = None
    roots: Annotated[list[StoredPath], Field(max_length=MOST_ROOTS)] = Field(default_factory=list)
    total: int = Field(ge=0)
    chunk_size: int = Field(ge=1)
    state: BatchState = BatchState.PENDING
    epoch: int = 0
    counts: dict[str, int] | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    paused_at: datetime | None = None
    paused_s: float = 0.0
    callback: Callback | None = None
    callback_sent_at: datetime | None = None

    class Settings:
        """The collection."""

        name = "batch_jobs"
