"""How much of the exact answer the approximate index finds, as it was measured last.

Invariant: one row for each `ef_search` that was tried, all of one measurement.
"""

from datetime import datetime

from sqlalchemy import Integer
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import REAL, BigInteger

from samplemind.models.base import Base


class SearchRecall(Base):
    """What one `ef_search` gave."""

    __tablename__ = "search_recall"

    ef_search: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    recall: Mapped[float] = mapped_column(REAL)  # share of the true ten nearest, 0..1
    surely: Mapped[float] = mapped_column(REAL)  # the same less its standard error
    milliseconds: Mapped[float] = mapped_column(REAL)  # median of a query
    queries: Mapped[int] = mapped_column(Integer)
    vectors: Mapped[int] = mapped_column(BigInteger)  # about how many there were
    measured_at: Mapped[datetime]
