"""How often each file was played and downloaded.

Invariant: counters that change often stand here and never in an indexed row: a count there would
write every index of the row anew (6,000 bytes of WAL against 146). No column but the key is
indexed, so an update stays on its page.
"""

from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from samplemind.models.base import Base, Count, CreatedAt


class SearchUsage(Base):
    """One file's counters."""

    __tablename__ = "search_usage"

    file_id: Mapped[UUID] = mapped_column(primary_key=True)
    plays: Mapped[Count]
    downloads: Mapped[Count]
    updated_at: Mapped[CreatedAt]

    __table_args__ = ({"postgresql_with": {"fillfactor": "70"}},)
