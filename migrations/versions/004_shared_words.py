"""What everybody may be told of the vocabulary, and which text configuration a rebuild wrote.

Until the vocabulary is counted again, no word counts as shared: each is told only where a file
that the viewer sees has it.

Revision ID: 004
Revises: 003
"""

import sqlalchemy as sa
from alembic import op

revision = "004"
down_revision = "003"
branch_labels = None
depends_on = None

_PREFIX_INDEX = "ix_search_words_word_prefix"


def upgrade() -> None:
    op.add_column(
        "search_words", sa.Column("shared", sa.Integer(), server_default="0", nullable=False)
    )
    _index_prefixes(["documents", "shared"])
    op.add_column("search_rebuilds", sa.Column("text_configuration", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("search_rebuilds", "text_configuration")
    _index_prefixes(["documents"])
    op.drop_column("search_words", "shared")


def _index_prefixes(include: list[str]) -> None:
    op.drop_index(_PREFIX_INDEX, "search_words")
    op.create_index(
        _PREFIX_INDEX,
        "search_words",
        ["word"],
        postgresql_ops={"word": "text_pattern_ops"},
        postgresql_include=include,
    )
