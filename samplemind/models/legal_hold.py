"""Legal holds: what retention must not touch, whatever its policies say.

Invariant: a hold names a user or a tag and counts until it is released; a released one stays as a
record of itself.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.orm import Mapped

from samplemind.models.base import Base, CreatedAt, PrimaryKey


class LegalHold(Base):
    """A hold on all that belongs to a user, or on all files with a tag and what was made of them.

    It refers to no user by foreign key: it outlives the account.
    """

    __tablename__ = "legal_holds"

    id: Mapped[PrimaryKey]
    user_id: Mapped[UUID | None]
    tag: Mapped[str | None]
    reason: Mapped[str]
    created_at: Mapped[CreatedAt]
    released_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("num_nonnulls(user_id, tag) = 1", "names_one"),
        CheckConstraint("length(reason) > 0", "reason_given"),
        Index("ix_legal_holds_active", "created_at", postgresql_where=text("released_at IS NULL")),
    )
