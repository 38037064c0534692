"""API keys: how a program signs in as a user.

Invariant: the key itself is never stored, only its SHA-256, and its first characters so that a
person can tell keys apart. A fast hash is right here and wrong for passwords: the key has 256
random bits, which no guessing reaches. A revoked or expired key never becomes valid again.
"""

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from samplemind.models.base import Base, Count, CreatedAt, PrimaryKey, TextSet

if TYPE_CHECKING:
    from samplemind.models.user import User


class ApiKey(Base):
    """One key; limits are requests a minute and a day, none for no limit."""

    __tablename__ = "api_keys"

    id: Mapped[PrimaryKey]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str]
    prefix: Mapped[str]
    key_hash: Mapped[bytes] = mapped_column(unique=True)
    scopes: Mapped[TextSet]
    rate_limit_per_minute: Mapped[int | None]
    rate_limit_per_day: Mapped[int | None]
    times_used: Mapped[Count]
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]

    user: Mapped["User"] = relationship(back_populates="api_keys", lazy="raise")

    __table_args__ = (
        CheckConstraint("length(name) BETWEEN 1 AND 200", "name_length"),
        CheckConstraint("length(prefix) BETWEEN 6 AND 16", "prefix_length"),
        CheckConstraint("octet_length(key_hash) = 32", "key_hash_is_sha256"),
        CheckConstraint(
            "rate_limit_per_minute > 0 AND rate_limit_per_day > 0", "rate_limits_positive"
        ),
        CheckConstraint("times_used >= 0", "times_used_not_negative"),
        CheckConstraint("expires_at > created_at", "expires_after_creation"),
        Index("ix_api_keys_user_id_created_at", "user_id", "created_at"),
        Index("ix_api_keys_prefix", "prefix"),
        Index("ix_api_keys_scopes", "scopes", postgresql_using="gin"),
        Index(
            "ix_api_keys_expires_at",
            "expires_at",
            postgresql_where=text("revoked_at IS NULL AND expires_at IS NOT NULL"),
        ),
        Index(
            "ix_api_keys_revoked_at",
            "revoked_at",
            postgresql_where=text("revoked_at IS NOT NULL"),
        ),
        {"postgresql_with": {"fillfactor": "90"}},
    )
