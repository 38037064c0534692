"""User sessions: where a user is signed in.

Invariant: only the SHA-256 of a session's token is stored. A session is live while it is neither
expired nor revoked; a revoked one never comes back. Its device and address are what the user
sees in "signed in on".
"""

import ipaddress
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.orm import Mapped, mapped_column, relationship

from samplemind.models.base import Base, CreatedAt, PrimaryKey

if TYPE_CHECKING:
    from samplemind.models.user import User


class UserSession(Base):
    """One sign-in on one device."""

    __tablename__ = "user_sessions"

    id: Mapped[PrimaryKey]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    token_hash: Mapped[bytes] = mapped_column(unique=True)
    device_name: Mapped[str | None]
    user_agent: Mapped[str | None]
    ip_address: Mapped[ipaddress.IPv4Address | ipaddress.IPv6Address | None] = mapped_column(INET)
    last_seen_at: Mapped[datetime | None]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    revoked_reason: Mapped[str | None]
    created_at: Mapped[CreatedAt]

    user: Mapped["User"] = relationship(back_populates="sessions", lazy="raise")

    __table_args__ = (
        CheckConstraint("octet_length(token_hash) = 32", "token_hash_is_sha256"),
        CheckConstraint("expires_at > created_at", "expires_after_creation"),
        CheckConstraint(
            "revoked_reason IS NULL OR revoked_at IS NOT NULL", "reason_only_if_revoked"
        ),
        Index("ix_user_sessions_user_id_created_at", "user_id", "created_at"),
        Index(
            "ix_user_sessions_user_id_live",
            "user_id",
            "expires_at",
            postgresql_where=text("revoked_at IS NULL"),
        ),
        Index("ix_user_sessions_expires_at", "expires_at"),
        Index(
            "ix_user_sessions_revoked_at",
            "revoked_at",
            postgresql_where=text("revoked_at IS NOT NULL"),
        ),
        Index("ix_user_sessions_ip_address_created_at", "ip_address", "created_at"),
        {"postgresql_with": {"fillfactor": "90"}},
    )
