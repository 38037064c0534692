"""The search index: one row for each audio file, with its words and its sound.

Revision ID: 002
Revises: 001
"""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects import postgresql

revision = "002"
down_revision = "001"
branch_labels = None
depends_on = None

# English stems without stop words ("A minor" and "off beat" must survive), accents folded.
_CONFIGURATION = (
    "CREATE EXTENSION IF NOT EXISTS unaccent",
    "CREATE TEXT SEARCH DICTIONARY samplemind_stem (TEMPLATE = snowball, LANGUAGE = english)",
    "CREATE TEXT SEARCH CONFIGURATION samplemind (COPY = simple)",
    """
    ALTER TEXT SEARCH CONFIGURATION samplemind
    ALTER MAPPING FOR asciiword, word, asciihword, hword, hword_asciipart, hword_part
    WITH unaccent, samplemind_stem
    """,
)


def upgrade() -> None:
    for statement in _CONFIGURATION:
        op.execute(statement)
    op.create_table(
        "search_documents",
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("pack", sa.Text(), nullable=True),
        sa.Column("tags", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("tempo_bpm", sa.REAL(), nullable=True),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("duration_s", sa.REAL(), nullable=True),
        sa.Column("loudness_lufs", sa.REAL(), nullable=True),
        sa.Column("words", postgresql.TSVECTOR(), nullable=False),
        sa.Column("embedding", HALFVEC(128), nullable=True),
        sa.Column("embedding_version", sa.Text(), nullable=True),
        sa.Column(
            "indexed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("statement_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("file_id", name=op.f("pk_search_documents")),
    )
    # Compared without being unpacked first: a detoasted vector costs more than its distance.
    op.execute("ALTER TABLE search_documents ALTER COLUMN embedding SET STORAGE PLAIN")
    _create_indexes()


def _create_indexes() -> None:
    table = "search_documents"
    # `samplemind search`: the words.
    op.create_index("ix_search_documents_words", table, ["words"], postgresql_using="gin")
    # `samplemind similar`: the nearest by cosine.
    op.create_index(
        "ix_search_documents_embedding",
        table,
        ["embedding"],
        postgresql_using="hnsw",
        postgresql_with={"m": 16, "ef_construction": 64},
        postgresql_ops={"embedding": "halfvec_cosine_ops"},
    )
    # `--owner`: one owner's files.
    op.create_index("ix_search_documents_owner_id", table, ["owner_id", "file_id"])
    # `--bpm`, `--key`, `--kind`: what producers narrow by.
    op.create_index("ix_search_documents_tempo_bpm", table, ["tempo_bpm"])
    op.create_index("ix_search_documents_key", table, ["key", "kind"])
    # `--tag`: files that have every tag asked for.
    op.create_index("ix_search_documents_tags", table, ["tags"], postgresql_using="gin")
    # `similar` by path: a file that is in the index already is not analysed again.
    op.create_index("ix_search_documents_path", table, ["path"], postgresql_using="hash")


def downgrade() -> None:
    op.drop_table("search_documents")
    op.execute("DROP TEXT SEARCH CONFIGURATION samplemind")
    op.execute("DROP TEXT SEARCH DICTIONARY samplemind_stem")
    op.execute("DROP EXTENSION IF EXISTS unaccent")
