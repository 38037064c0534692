"""The words of each file, in a table as narrow as can be: it is read by the hundred thousand.

Invariant: one row for each row of `search_documents`, written in the same transaction. A rebuild
writes the rows in descending quality, so that the first matches in the order of the heap are the
best in quality; rows that came later stand at its end.
"""

from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import REAL

from samplemind.models.base import Base


class SearchText(Base):
    """One file's words: title A, tags B, pack and artist C, description and path D."""

    __tablename__ = "search_texts"

    file_id: Mapped[UUID] = mapped_column(primary_key=True)
    owner_id: Mapped[UUID | None]
    quality: Mapped[float] = mapped_column(REAL)
    words: Mapped[str] = mapped_column(TSVECTOR)

    __table_args__ = (
        # `samplemind search`: the words.
        Index("ix_search_texts_words", "words", postgresql_using="gin"),
        # `search --owner`: the words of one owner's files.
        Index("ix_search_texts_owner_id_words", "owner_id", "words", postgresql_using="gin"),
        # Common words: the best files first, in whatever order later rows came to stand.
        Index("ix_search_texts_quality", "quality", "file_id"),
    )
