"""What the search index knows of one audio file: its words, its sound, and what filters look at.

The row is derived: MongoDB holds the truth, `samplemind.search.indexer` writes this and nothing
else does. `revision` is the audio file's own, so a late writer never overwrites a newer row.
"""

from datetime import datetime
from uuid import UUID

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import Index, Text, func
from sqlalchemy.dialects.postgresql import ARRAY, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import REAL, BigInteger, DateTime

from samplemind.models.base import Base

EMBEDDING_DIMENSIONS = 128


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
    words: Mapped[str] = mapped_column(TSVECTOR)  # title A, tags B, pack C, path D
    embedding: Mapped[list[float] | None] = mapped_column(HALFVEC(EMBEDDING_DIMENSIONS))
    embedding_version: Mapped[str | None] = mapped_column(Text)
    indexed_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.statement_timestamp()
    )

    __table_args__ = (
        # `samplemind search`: the words.
        Index("ix_search_documents_words", "words", postgresql_using="gin"),
        # `samplemind similar`: the nearest by cosine.
        Index(
            "ix_search_documents_embedding",
            "embedding",
            postgresql_using="hnsw",
            postgresql_with={"m": 16, "ef_construction": 64},
            postgresql_ops={"embedding": "halfvec_cosine_ops"},
        ),
        # `--owner`: one owner's files.
        Index("ix_search_documents_owner_id", "owner_id", "file_id"),
        # `--bpm`, `--key`, `--kind`: what producers narrow by.
        Index("ix_search_documents_tempo_bpm", "tempo_bpm"),
        Index("ix_search_documents_key", "key", "kind"),
        # `--tag`: files that have every tag asked for.
        Index("ix_search_documents_tags", "tags", postgresql_using="gin"),
        # `similar` by path: a file that is in the index already is not analysed again.
        Index("ix_search_documents_path", "path", postgresql_using="hash"),
    )
