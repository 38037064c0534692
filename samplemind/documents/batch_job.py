"""A batch: many files submitted at once.

Invariant: it is written after all of its items, so a batch that can be seen is whole. While it
runs, its counts are counted from the items and never kept beside them; the write that ends it
stores them. `epoch` rises when finished work is opened again, so that a caller who counted
before that cannot finish the batch after it.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from beanie import Document
from pydantic import Field

from samplemind.documents.text import StoredPath

MOST_ROOTS = 1000


class BatchKind(StrEnum):
    """What is done with each file."""

    ANALYZE = "analyze"


class BatchState(StrEnum):
    """Where a batch stands."""

    PENDING = "pending"
    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"


class BatchJob(Document):
    """One batch.

    Attributes:
        owner_id: whose files they become; None for the library's own.
        roots: the files and folders that were given.
        total: number of items.
        chunk_size: items in one job; chunk k holds the items k * chunk_size and on.
        counts: items by state once the batch ended; None while it runs.
    """

    id: UUID  # type: ignore[assignment]  # Beanie's own default is an ObjectId
    kind: BatchKind = BatchKind.ANALYZE
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

    class Settings:
        """The collection."""

        name = "batch_jobs"
