"""OAuth accounts: a user's identity with another provider.

Invariant: an account of a provider belongs to one user, and a user has one account with each
provider. Both tokens are stored encrypted only; `token_key_id` names the key that closed them,
so that a rotation finds what is still under an older one.
"""

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from samplemind.models.base import Base, CreatedAt, PrimaryKey, TextSet, UpdatedAt

if TYPE_CHECKING:
    from samplemind.models.user import User


class OAuthAccount(Base):
    """One link between a user and an account of a provider."""

    __tablename__ = "oauth_accounts"

    id: Mapped[PrimaryKey]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    provider: Mapped[str]
    provider_account_id: Mapped[str]
    provider_email: Mapped[str | None]
    access_token_encrypted: Mapped[bytes]
    refresh_token_encrypted: Mapped[bytes | None]
    token_key_id: Mapped[str]
    token_expires_at: Mapped[datetime | None]
    scopes: Mapped[TextSet]
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[UpdatedAt]

    user: Mapped["User"] = relationship(back_populates="oauth_accounts", lazy="raise")

    __table_args__ = (
        CheckConstraint("provider ~ '^[a-z][a-z0-9_-]{0,49}$'", "provider_form"),
        CheckConstraint("provider_account_id <> ''", "provider_account_id_given"),
        # A Fernet token starts with its version, 0x80, and the upper half of a 64-bit time:
        # "gAAAAA" in base64. A token in clear text cannot slip in.
        CheckConstraint(
            "substring(access_token_encrypted FROM 1 FOR 6) = 'gAAAAA'::bytea",
            "access_token_is_encrypted",
        ),
        CheckConstraint(
            "substring(refresh_token_encrypted FROM 1 FOR 6) = 'gAAAAA'::bytea",
            "refresh_token_is_encrypted",
        ),
        UniqueConstraint("provider", "provider_account_id"),
        UniqueConstraint("user_id", "provider"),
        Index(
            "ix_oauth_accounts_token_expires_at",
            "token_expires_at",
            postgresql_where=text("refresh_token_encrypted IS NOT NULL"),
        ),
        Index("ix_oauth_accounts_token_key_id", "token_key_id", "id"),
        Index("ix_oauth_accounts_provider_email_lower", func.lower(text("provider_email"))),
    )
