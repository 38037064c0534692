"""Statistics of the words that are indexed: how common each is, how it is spelt, what begins so.

All three tables are derived from the index by `samplemind.search.statistics` and may be hours old:
they guide plans, corrections and suggestions, and never decide what is found.
"""

from sqlalchemy import Index, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from samplemind.models.base import Base


class SearchLexeme(Base):
    """A lexeme as it stands in `search_texts.words`, and how many files have it."""

    __tablename__ = "search_lexemes"

    lexeme: Mapped[str] = mapped_column(Text, primary_key=True)
    documents: Mapped[int]


class SearchWord(Base):
    """A word as people write it, folded to lower case without accents, not stemmed."""

    __tablename__ = "search_words"

    word: Mapped[str] = mapped_column(Text, primary_key=True)
    documents: Mapped[int]
    # Of these, the files that belong to nobody, so that everybody may see them.
    shared: Mapped[int] = mapped_column(server_default=text("0"))

    __table_args__ = (
        # `fuzzy`: words that share trigrams with a misspelt one.
        Index(
            "ix_search_words_word_trgm",
            "word",
            postgresql_using="gin",
            postgresql_ops={"word": "gin_trgm_ops"},
        ),
        # `suggest`: words by prefix, their counts without a visit to the table.
        Index(
            "ix_search_words_word_prefix",
            "word",
            postgresql_ops={"word": "text_pattern_ops"},
            postgresql_include=["documents", "shared"],
        ),
    )


class SearchPrefix(Base):
    """Words that begin with one to five letters, the most common first.

    The ten most common of all files, and the ten most common of those that everybody may see.
    """

    __tablename__ = "search_prefixes"

    prefix: Mapped[str] = mapped_column(Text, primary_key=True)
    words: Mapped[list[str]] = mapped_column(ARRAY(Text))
