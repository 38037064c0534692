"""Runs of periodic jobs: when each started and ended, and how.

Invariant: one row for each job and slot, however often the slot was tried; the row tells of the
last attempt. A run without an end is running, or its worker died.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from samplemind.models.base import Base, CreatedAt, PrimaryKey


class PeriodicRun(Base):
    """One slot of one periodic job; `slot` is a time, or `manual:<id>` of an operator's run."""

    __tablename__ = "periodic_runs"

    id: Mapped[PrimaryKey]
    name: Mapped[str]
    slot: Mapped[str]
    job_id: Mapped[str]
    host: Mapped[str]
    attempts: Mapped[int] = mapped_column(server_default=text("1"))
    started_at: Mapped[CreatedAt]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    seconds: Mapped[float | None]
    figures: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    error: Mapped[str | None]

    __table_args__ = (
        UniqueConstraint("name", "slot"),
        CheckConstraint("outcome IN ('succeeded', 'failed', 'retried')", "outcome_known"),
        Index("ix_periodic_runs_name_started_at", "name", "started_at"),
        Index("ix_periodic_runs_started_at", "started_at"),
    )
