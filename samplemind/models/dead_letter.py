"""Jobs that will not run again by themselves, kept until somebody sends or discards them.

Invariant: `body` is what the job was sent with, to the letter, so that it can be sent again;
`payload` is the same for people to read and to search, without what JSONB cannot hold. A letter
that is `replayed` has a job id that follows from its id and its generation, and `published_at` says
whether the broker has that job: while it is empty, the collection publishes it.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, Integer, text
from sqlalchemy.orm import Mapped, mapped_column

from samplemind.models.base import Base


class DeadLetterState(StrEnum):
    """What became of a letter."""

    OPEN = "open"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


class DeadLetter(Base):
    """One job that ended without doing its work."""

    __tablename__ = "dead_letters"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    job_id: Mapped[str]
    task: Mapped[str]
    body: Mapped[str]
    payload: Mapped[dict[str, Any] | None]
    schema_version: Mapped[int] = mapped_column(Integer)
    code: Mapped[str]
    error: Mapped[str]
    traceback: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(Integer)
    occurrences: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    worker: Mapped[str]
    first_failed_at: Mapped[datetime]
    last_failed_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(server_default=text("'open'"))
    generation: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    replay_job_id: Mapped[UUID | None]
    published_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
    reason: Mapped[str | None]

    __table_args__ = (
        CheckConstraint("state IN ('open', 'replayed', 'discarded')", "state_known"),
        CheckConstraint("(state = 'open') = (closed_at IS NULL)", "closed_at_named"),
        CheckConstraint("state <> 'replayed' OR replay_job_id IS NOT NULL", "replay_named"),
        CheckConstraint("state <> 'discarded' OR reason IS NOT NULL", "reason_named"),
        Index("ix_dead_letters_state_last_failed_at", "state", "last_failed_at"),
        Index("ix_dead_letters_task_last_failed_at", "task", "last_failed_at"),
        Index("ix_dead_letters_job_id", "job_id"),
        Index(
            "ix_dead_letters_unpublished",
            "closed_at",
            postgresql_where=text("state = 'replayed' AND published_at IS NULL"),
        ),
    )
