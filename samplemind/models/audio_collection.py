"""Audio collections and their items.

Invariant: `file_count` is the number of a collection's items at every commit, whoever writes and
however many write at once: triggers of the database keep it (migration 001), and refuse a count
that is written by hand. A file is in a collection once. The files themselves are documents in
MongoDB, so `audio_file_id` has no foreign key; `AudioCollectionRepository.forget_files` takes out
what was deleted.
"""

from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import CheckConstraint, FetchedValue, ForeignKey, Index, Integer, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from samplemind.models.base import Base, CreatedAt, PrimaryKey, UpdatedAt

if TYPE_CHECKING:
    from samplemind.models.user import User


class AudioCollection(Base):
    """A named, ordered set of files; private unless `is_public`."""

    __tablename__ = "audio_collections"

    id: Mapped[PrimaryKey]
    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str]
    description: Mapped[str | None]
    is_public: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    file_count: Mapped[int] = mapped_column(
        Integer, server_default=text("0"), server_onupdate=FetchedValue()
    )
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[UpdatedAt]

    owner: Mapped["User"] = relationship(back_populates="collections", lazy="raise")
    items: Mapped[list["AudioCollectionItem"]] = relationship(
        back_populates="collection",
        cascade="all, delete-orphan",
        passive_deletes=True,
        lazy="raise",
        order_by="AudioCollectionItem.position",
    )

    __table_args__ = (
        CheckConstraint("length(name) BETWEEN 1 AND 200", "name_length"),
        CheckConstraint("file_count >= 0", "file_count_not_negative"),
        Index(
            "uq_audio_collections_owner_id_name", "owner_id", func.lower(text("name")), unique=True
        ),
        Index("ix_audio_collections_owner_id_updated_at", "owner_id", "updated_at"),
        Index("ix_audio_collections_public", "updated_at", postgresql_where=text("is_public")),
        Index(
            "ix_audio_collections_public_name_trgm",
            "name",
            postgresql_using="gin",
            postgresql_ops={"name": "gin_trgm_ops"},
            postgresql_where=text("is_public"),
        ),
        Index(
            "ix_audio_collections_owner_id_name_trgm",
            "owner_id",
            "name",
            postgresql_using="gin",
            postgresql_ops={"name": "gin_trgm_ops"},
        ),
        # The counter is not indexed, so that a count can change in place (HOT).
        {"postgresql_with": {"fillfactor": "90"}},
    )


class AudioCollectionItem(Base):
    """One file in one collection, at a place in its order."""

    __tablename__ = "audio_collection_items"

    id: Mapped[PrimaryKey]
    collection_id: Mapped[UUID] = mapped_column(
        ForeignKey("audio_collections.id", ondelete="CASCADE")
    )
    audio_file_id: Mapped[UUID]
    position: Mapped[int]
    added_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    added_at: Mapped[CreatedAt]

    collection: Mapped["AudioCollection"] = relationship(back_populates="items", lazy="raise")

    __table_args__ = (
        CheckConstraint("position >= 0", "position_not_negative"),
        Index(
            "uq_audio_collection_items_collection_id_audio_file_id",
            "collection_id",
            "audio_file_id",
            unique=True,
        ),
        Index(
            "ix_audio_collection_items_collection_id_position", "collection_id", "position", "id"
        ),
        Index("ix_audio_collection_items_audio_file_id", "audio_file_id"),
        Index(
            "ix_audio_collection_items_added_by",
            "added_by",
            postgresql_where=text("added_by IS NOT NULL"),
        ),
    )
