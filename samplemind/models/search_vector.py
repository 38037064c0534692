"""The sound of each file: its embedding, and the raw blocks that it was projected from.

A file's vector is in `search_vectors`, which has the approximate index, or in
`search_vectors_fresh`, which has none and takes what is new at full speed; folding moves it.

Invariant: it is in exactly one of the two at every commit. A query must look into both in one
statement (or in the fresh one first, and drop repeats): between two statements a vector may move
from fresh to main, never unseen in the other direction alone.
"""

from uuid import UUID

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import Index, LargeBinary, Text
from sqlalchemy.orm import Mapped, mapped_column

from samplemind.models.base import Base

EMBEDDING_DIMENSIONS = 128


class SearchVector(Base):
    """A vector that the approximate index holds; vectors of two versions are two spaces."""

    __tablename__ = "search_vectors"

    file_id: Mapped[UUID] = mapped_column(primary_key=True)
    owner_id: Mapped[UUID | None]
    embedding_version: Mapped[str] = mapped_column(Text)
    embedding: Mapped[list[float]] = mapped_column(HALFVEC(EMBEDDING_DIMENSIONS))

    __table_args__ = (
        # `samplemind similar`: the nearest by cosine.
        Index(
            "ix_search_vectors_embedding",
            "embedding",
            postgresql_using="hnsw",
            postgresql_with={"m": 16, "ef_construction": 64},
            postgresql_ops={"embedding": "halfvec_cosine_ops"},
        ),
        # `similar --owner`: all vectors of one owner compared, without a visit to the table.
        Index(
            "ix_search_vectors_owner_id",
            "owner_id",
            postgresql_include=["file_id", "embedding_version", "embedding"],
        ),
    )


class FreshSearchVector(Base):
    """A vector that is new or changed: found by comparing, until it is folded in."""

    __tablename__ = "search_vectors_fresh"

    file_id: Mapped[UUID] = mapped_column(primary_key=True)
    owner_id: Mapped[UUID | None]
    embedding_version: Mapped[str] = mapped_column(Text)
    embedding: Mapped[list[float]] = mapped_column(HALFVEC(EMBEDDING_DIMENSIONS))


class SearchBlocks(Base):
    """A file's raw blocks, for re-ranking by aspects.

    `blocks` is float16 little-endian, all blocks joined in the order of
    `samplemind.audio.embedding.BLOCK_SIZES`.
    """

    __tablename__ = "search_blocks"

    file_id: Mapped[UUID] = mapped_column(primary_key=True)
    embedding_version: Mapped[str] = mapped_column(Text)
    blocks: Mapped[bytes] = mapped_column(LargeBinary)
