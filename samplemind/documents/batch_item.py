"""One file of a batch, and who works on it.

Invariant: an item leaves `claimed` only by the holder of its claim token, by the end of the claim,
or by a cancellation; each of these takes the token away. So a worker that slept past its claim
changes nothing when it wakes up, and an item is counted once.
"""

from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from beanie import Document
from pydantic import BaseModel, Field

from samplemind.documents.text import Name, Prose, StoredPath
from samplemind.ids import new_id


class ItemState(StrEnum):
    """Where an item stands; the last four are ends."""

    PENDING = "pending"
    CLAIMED = "claimed"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


OPEN_STATES = (ItemState.PENDING, ItemState.CLAIMED)

WAITING = datetime(9999, 1, 1, tzinfo=UTC)
"""`due_at` of a pending item for which no message was sent yet: it cannot be lost."""


class ItemError(BaseModel):
    """Why an item failed: a code for programs and a sentence for people."""

    code: Name
    message: Prose


class BatchItem(Document):
    """One file of a batch.

    Attributes:
        seq: 0 to total - 1, in the order in which the files were given.
        path: as `store_path` writes it.
        job_id: the job that claimed it last.
        claim: the claim's token; None unless claimed.
        due_at: when a claimed item may be taken from its holder, and when a pending one's message
            counts as lost, `WAITING` before it was sent; None at the end.
        claims: how often it was claimed and not given back untouched.
        attempts: how often it was read and the machine failed, not the file.
        trials: how often its analysis was begun alone, after a claim that ended without a result,
            and ended its worker or was interrupted.
        seconds: that its analysis took.
    """

    id: UUID = Field(default_factory=new_id)  # type: ignore[assignment]  # not an ObjectId
    batch_id: UUID
    seq: int = Field(ge=0)
    path: StoredPath
    state: ItemState = ItemState.PENDING
    job_id: Name | None = None
    claim: UUID | None = None
    due_at: datetime | None = None
    claims: int = 0
    attempts: int = 0
    trials: int = 0
    error: ItemError | None = None
    audio_file_id: UUID | None = None
    seconds: float | None = None
    finished_at: datetime | None = None

    class Settings:
        """The collection."""

        name = "batch_items"
