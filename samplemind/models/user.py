"""Users: who owns files, signs in, and may do what.

Invariant: an e-mail address belongs to one user, whatever its case. Only an Argon2id hash of a
password is stored; an owner made by `samplemind ingest --owner` has none and cannot sign in.
Counters change without touching an index, so that PostgreSQL can update them in place (HOT).
"""

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import CheckConstraint, Index, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column, relationship

from samplemind.models.base import Base, Count, CreatedAt, PrimaryKey, UpdatedAt
from samplemind.security.permissions import Permission, Role, permissions_of

if TYPE_CHECKING:
    from samplemind.models.api_key import ApiKey
    from samplemind.models.audio_collection import AudioCollection
    from samplemind.models.oauth_account import OAuthAccount
    from samplemind.models.user_session import UserSession


class User(Base):
    """One account; `password_hash` is none where the user cannot sign in with a password."""

    __tablename__ = "users"

    id: Mapped[PrimaryKey]
    email: Mapped[str]
    display_name: Mapped[str | None]
    password_hash: Mapped[str | None]
    roles: Mapped[list[str]] = mapped_column(
        ARRAY(Text), default=lambda: [Role.MEMBER.value], server_default=text("'{member}'::text[]")
    )
    is_active: Mapped[bool] = mapped_column(default=True, server_default=text("true"))
    files_ingested: Mapped[Count]
    bytes_ingested: Mapped[Count]
    searches_made: Mapped[Count]
    last_seen_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[UpdatedAt]

    api_keys: Mapped[list["ApiKey"]] = relationship(
        back_populates="user", cascade="all, delete-orphan", passive_deletes=True, lazy="raise"
    )
    oauth_accounts: Mapped[list["OAuthAccount"]] = relationship(
        back_populates="user", cascade="all, delete-orphan", passive_deletes=True, lazy="raise"
    )
    sessions: Mapped[list["UserSession"]] = relationship(
        back_populates="user", cascade="all, delete-orphan", passive_deletes=True, lazy="raise"
    )
    collections: Mapped[list["AudioCollection"]] = relationship(
        back_populates="owner", cascade="all, delete-orphan", passive_deletes=True, lazy="raise"
    )

    __table_args__ = (
        CheckConstraint(r"email ~ '^[^@\s]+@[^@\s]+$' AND length(email) <= 320", "email_form"),
        CheckConstraint("starts_with(password_hash, '$argon2id$')", "password_hash_is_argon2id"),
        CheckConstraint(
            "cardinality(roles) > 0 AND "
            "roles <@ ARRAY['member', 'curator', 'operator', 'admin']::text[]",
            "roles_known",
        ),
        CheckConstraint(
            "files_ingested >= 0 AND bytes_ingested >= 0 AND searches_made >= 0",
            "counters_not_negative",
        ),
        Index("uq_users_email_lower", func.lower(text("email")), unique=True),
        Index("ix_users_roles", "roles", postgresql_using="gin"),
        Index(
            "ix_users_email_display_name_trgm",
            "email",
            "display_name",
            postgresql_using="gin",
            postgresql_ops={"email": "gin_trgm_ops", "display_name": "gin_trgm_ops"},
        ),
        Index("ix_users_inactive", "updated_at", postgresql_where=text("NOT is_active")),
        {"postgresql_with": {"fillfactor": "90"}},
    )

    @property
    def permissions(self) -> frozenset[Permission]:
        """What the user's roles allow; nothing where the account is switched off."""
        if not self.is_active:
            return frozenset()
        return permissions_of(Role(role) for role in self.roles)
