"""Rebuilds of the index, and what changed while one ran.

Invariant: at most one rebuild has neither `finished_at` nor `failed_at`. While there is one, every
writer of the index adds the files that it wrote or removed to `search_changes` in the same
transaction, so that the next generation can catch up with exactly those.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Identity, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from samplemind.models.base import Base, Count, CreatedAt, PrimaryKey


class SearchRebuild(Base):
    """One rebuild and how far it is."""

    __tablename__ = "search_rebuilds"

    id: Mapped[PrimaryKey]
    phase: Mapped[str] = mapped_column(Text)
    files: Mapped[Count]
    # Of words whose file names no language; none: of a rebuild from before it was noted.
    text_configuration: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[CreatedAt]
    finished_at: Mapped[datetime | None]
    failed_at: Mapped[datetime | None]

    __table_args__ = (
        Index(
            "uq_search_rebuilds_running",
            text("(finished_at IS NULL AND failed_at IS NULL)"),
            unique=True,
            postgresql_where=text("finished_at IS NULL AND failed_at IS NULL"),
        ),
    )


class SearchChange(Base):
    """A file that was written or removed while a rebuild ran; one file may stand here often."""

    __tablename__ = "search_changes"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    file_id: Mapped[UUID]
