"""What the search index knows of one audio file: what results show and filters look at.

The row is derived: MongoDB holds the truth, `samplemind.search` writes this and nothing else does.
What the words and the sound are found by stands in narrow tables beside it (`search_text`,
`search_vector`), because a wide row in a ranked table costs two to three times as much.

Invariant: `(created_at, revision, index_version)` only grows: a late writer never overwrites a
newer row, and a file that was deleted and made again, whose revisions start anew, is newer by its
`created_at`.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, LargeBinary, SmallInteger, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import REAL, BigInteger, DateTime

from samplemind.models.base import Base


class SearchDocument(Base):
    """One audio file in the index."""

    __tablename__ = "search_documents"

    file_id: Mapped[UUID] = mapped_column(primary_key=True)
    owner_id: Mapped[UUID | None]  # none: the library's own, found by all
    revision: Mapped[int] = mapped_column(BigInteger)
    path: Mapped[str] = mapped_column(Text)
    title: Mapped[str] = mapped_column(Text)
    pack: Mapped[str | None] = mapped_column(Text)
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text))
    kind: Mapped[str | None] = mapped_column(Text)
    tempo_bpm: Mapped[float | None] = mapped_column(REAL)
    key: Mapped[str | None] = mapped_column(Text)  # "F# minor", sharps only
    duration_s: Mapped[float | None] = mapped_column(REAL)
    loudness_lufs: Mapped[float | None] = mapped_column(REAL)
    embedding_version: Mapped[str | None] = mapped_column(Text)  # none: the file has no vector
    indexed_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.statement_timestamp()
    )
    artist: Mapped[str | None] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    format: Mapped[str | None] = mapped_column(Text)
    language: Mapped[str] = mapped_column(Text)  # the text search configuration of its words
    # Title, tags, pack and artist with their words apart: what vocabulary and highlights are
    # made of, so that SQL need not know how names are split.
    wording: Mapped[str] = mapped_column(Text)
    quality: Mapped[float] = mapped_column(REAL)  # 0..1, whatever the query is
    created_at: Mapped[datetime]  # when the file came into the library
    content_hash: Mapped[str | None] = mapped_column(Text)  # SHA-256 in hex
    index_version: Mapped[int] = mapped_column(SmallInteger)  # of the code that made the row
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)  # of what the row was made from

    __table_args__ = (
        # `--owner`: one owner's files, in the order in which reconciliation streams them.
        Index("ix_search_documents_owner_id", "owner_id", "file_id"),
        # `--bpm`, `--key`, `--kind`: what producers narrow by.
        Index("ix_search_documents_tempo_bpm", "tempo_bpm"),
        Index("ix_search_documents_key", "key", "kind"),
        # `--tag`: files that have every tag asked for.
        Index("ix_search_documents_tags", "tags", postgresql_using="gin"),
        # `suggest`: names by their first letters, in the order of code points.
        # In the collation "C", which the migration sets and autogenerate does not see.
        Index("ix_search_documents_name", text('lower("left"(wording, 60))')),
        # `suggest` as one person sees it: each owner's names by themselves.
        Index(
            "ix_search_documents_owner_id_name",
            "owner_id",
            text('lower("left"(wording, 60))'),
        ),
        # `similar` by path: a file that is in the index already is not analysed again.
        Index("ix_search_documents_path", "path", postgresql_using="hash"),
    )
