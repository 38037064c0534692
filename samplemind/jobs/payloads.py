"""What each job is told: one model a job, the same for producers and workers.

Invariant: a payload is small and plain JSON; files and results never travel in a message.
"""

from typing import ClassVar, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator


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


PAYLOADS: tuple[type[Payload], ...] = (AnalyzeBatch, RescueBatches, IndexDirty, ReconcileIndex)
