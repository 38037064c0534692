"""Snapshots of the statements that cost most, so that trends can be shown.

Invariant: the figures are the server's own sums since it began to count; what happened between two
snapshots is their difference, unless the server's counters started anew (`counted_since`).
"""

from datetime import datetime

from sqlalchemy import BigInteger, Index
from sqlalchemy.orm import Mapped, mapped_column

from samplemind.models.base import Base


class StatementSnapshot(Base):
    """One statement's sums at one time; times in milliseconds, blocks of 8 KiB."""

    __tablename__ = "statement_snapshots"

    taken_at: Mapped[datetime] = mapped_column(primary_key=True)
    query_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    counted_since: Mapped[datetime | None]
    query: Mapped[str]
    calls: Mapped[int] = mapped_column(BigInteger)
    total_ms: Mapped[float]
    rows: Mapped[int] = mapped_column(BigInteger)
    blocks_read: Mapped[int] = mapped_column(BigInteger)
    blocks_hit: Mapped[int] = mapped_column(BigInteger)
    blocks_spilled: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index("ix_statement_snapshots_query_id_taken_at", "query_id", "taken_at"),)
