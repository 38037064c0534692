"""What each job is told: one model a job, the same for producers and workers.

Invariant: a payload is small and plain JSON; files and results never travel in a message.
"""

from typing import ClassVar, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_IDS = 1000
"""Files that one message may name: 40 kB of JSON."""


class Payload(BaseModel):
    """Base of every payload; `job_name` is the name that the message carries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_name: ClassVar[str]


class AnalyzeBatch(Payload):
    """Analyse the files of a batch whose place lies within first..last, both included."""

    job_name = "batches.analyze"

    batch_id: UUID
    first: int = Field(ge=0)
    last: int = Field(ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last < self.first:
            message = "last must not be less than first"
            raise ValueError(message)
        return self


class RescueBatches(Payload):
    """Publish again the parts of batches that nobody works on."""

    job_name = "batches.rescue"


class IndexDirty(Payload):
    """Write the files that are marked dirty into the search index."""

    job_name = "search.index"


class ReconcileIndex(Payload):
    """Compare the library with the index and mark what differs."""

    job_name = "search.reconcile"


class IndexFiles(Payload):
    """Bring these files up to date in the search index."""

    job_name = "search.index_files"

    ids: tuple[UUID, ...] = Field(min_length=1, max_length=MOST_IDS)


class DeleteFiles(Payload):
    """Take files out of the search index that were deleted from the library."""

    job_name = "search.delete_files"

    ids: tuple[UUID, ...] = Field(min_length=1, max_length=MOST_IDS)


class ReindexOwner(Payload):
    """Make the index rows of all files of one owner anew; none: the library's own files."""

    job_name = "search.reindex_owner"

    owner_id: UUID | None = None


class RebuildIndex(Payload):
    """Make the whole index anew beside the one that serves, and switch."""

    job_name = "search.rebuild"


class RefreshVocabulary(Payload):
    """Count the words that corrections and suggestions go by."""

    job_name = "search.refresh_vocabulary"


class FoldVectors(Payload):
    """Move fresh vectors into the approximate index."""

    job_name = "search.fold"


class OptimizeSearch(Payload):
    """Free dead rows, sort pending lists in, and clear what a dead rebuild has left."""

    job_name = "search.optimize"


class WarmCache(Payload):
    """Make popular searches anew before they expire from the cache."""

    job_name = "cache.warm"


PAYLOADS: tuple[type[Payload], ...] = (
    AnalyzeBatch,
    RescueBatches,
    IndexDirty,
    ReconcileIndex,
    IndexFiles,
    DeleteFiles,
    ReindexOwner,
    RebuildIndex,
    RefreshVocabulary,
    FoldVectors,
    OptimizeSearch,
    WarmCache,
)
