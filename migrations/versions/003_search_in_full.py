"""Search in full: words, sound, vocabulary and counters in tables of their own.

What the index held is carried over, so that queries go on; each file is indexed anew by the next
reconciliation, because its `index_version` is 0 and its `created_at` unknown.

Revision ID: 003
Revises: 002
"""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects import postgresql

revision = "003"
down_revision = "002"
branch_labels = None
depends_on = None

_STEMMED = (
    "danish",
    "dutch",
    "finnish",
    "french",
    "german",
    "italian",
    "norwegian",
    "portuguese",
    "russian",
    "spanish",
    "swedish",
    "turkish",
)
_WORD_TOKENS = "asciiword, word, asciihword, hword, hword_asciipart, hword_part"
# Moving a large index takes longer than a statement of a service may.
_PATIENCE = "SET LOCAL statement_timeout = 0"

_TABLES = (
    "search_texts",
    "search_vectors",
    "search_vectors_fresh",
    "search_blocks",
    "search_lexemes",
    "search_words",
    "search_prefixes",
    "search_usage",
    "search_rebuilds",
    "search_changes",
    "search_recall",
)


def upgrade() -> None:
    op.execute(_PATIENCE)
    # What waits in a GIN index's pending list is told by this alone.
    op.execute("CREATE EXTENSION IF NOT EXISTS pgstattuple")
    _create_configurations()
    _create_texts()
    _create_vectors()
    _create_vocabulary()
    _create_records()
    _carry_over()
    _widen_documents()
    # Built after the rows are there: inserting into an HNSW graph takes many times as long.
    _index_vectors()


def _create_configurations() -> None:
    op.execute("CREATE TEXT SEARCH CONFIGURATION samplemind_simple (COPY = simple)")
    op.execute(
        f"ALTER TEXT SEARCH CONFIGURATION samplemind_simple "
        f"ALTER MAPPING FOR {_WORD_TOKENS} WITH unaccent, simple"
    )
    for language in _STEMMED:
        name = f"samplemind_{language}"
        op.execute(
            f"CREATE TEXT SEARCH DICTIONARY {name}_stem "
            f"(TEMPLATE = snowball, LANGUAGE = {language})"
        )
        op.execute(f"CREATE TEXT SEARCH CONFIGURATION {name} (COPY = simple)")
        op.execute(
            f"ALTER TEXT SEARCH CONFIGURATION {name} "
            f"ALTER MAPPING FOR {_WORD_TOKENS} WITH unaccent, {name}_stem"
        )


def _create_texts() -> None:
    op.create_table(
        "search_texts",
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=True),
        sa.Column("quality", sa.REAL(), nullable=False),
        sa.Column("words", postgresql.TSVECTOR(), nullable=False),
        sa.PrimaryKeyConstraint("file_id", name=op.f("pk_search_texts")),
    )
    # `samplemind search`: the words.
    op.create_index("ix_search_texts_words", "search_texts", ["words"], postgresql_using="gin")
    # `search --owner`: the words of one owner's files.
    op.create_index(
        "ix_search_texts_owner_id_words",
        "search_texts",
        ["owner_id", "words"],
        postgresql_using="gin",
    )
    # Common words: the best files first, in whatever order later rows came to stand.
    op.create_index("ix_search_texts_quality", "search_texts", ["quality", "file_id"])


def _create_vectors() -> None:
    for table in ("search_vectors", "search_vectors_fresh"):
        op.create_table(
            table,
            sa.Column("file_id", sa.Uuid(), nullable=False),
            sa.Column("owner_id", sa.Uuid(), nullable=True),
            sa.Column("embedding_version", sa.Text(), nullable=False),
            sa.Column("embedding", HALFVEC(128), nullable=False),
            sa.PrimaryKeyConstraint("file_id", name=op.f(f"pk_{table}")),
        )
        # Compared without being unpacked first: a detoasted vector costs more than its distance.
        op.execute(f"ALTER TABLE {table} ALTER COLUMN embedding SET STORAGE PLAIN")
    op.create_table(
        "search_blocks",
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("embedding_version", sa.Text(), nullable=False),
        sa.Column("blocks", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("file_id", name=op.f("pk_search_blocks")),
    )


def _create_vocabulary() -> None:
    op.create_table(
        "search_lexemes",
        sa.Column("lexeme", sa.Text(), nullable=False),
        sa.Column("documents", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("lexeme", name=op.f("pk_search_lexemes")),
    )
    op.create_table(
        "search_words",
        sa.Column("word", sa.Text(), nullable=False),
        sa.Column("documents", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("word", name=op.f("pk_search_words")),
    )
    # `fuzzy`: words that share trigrams with a misspelt one.
    op.create_index(
        "ix_search_words_word_trgm",
        "search_words",
        ["word"],
        postgresql_using="gin",
        postgresql_ops={"word": "gin_trgm_ops"},
    )
    # `suggest`: words by prefix, their counts without a visit to the table.
    op.create_index(
        "ix_search_words_word_prefix",
        "search_words",
        ["word"],
        postgresql_ops={"word": "text_pattern_ops"},
        postgresql_include=["documents"],
    )
    op.create_table(
        "search_prefixes",
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("words", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("prefix", name=op.f("pk_search_prefixes")),
    )


def _create_records() -> None:
    now = sa.text("now()")
    op.create_table(
        "search_usage",
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("plays", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("downloads", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("file_id", name=op.f("pk_search_usage")),
        # Room for the next version of a row on its own page (HOT).
        postgresql_with={"fillfactor": "70"},
    )
    op.create_table(
        "search_rebuilds",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("files", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_search_rebuilds")),
    )
    running = "finished_at IS NULL AND failed_at IS NULL"
    op.create_index(
        "uq_search_rebuilds_running",
        "search_rebuilds",
        [sa.text(f"({running})")],
        unique=True,
        postgresql_where=sa.text(running),
    )
    op.create_table(
        "search_changes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_search_changes")),
    )
    # How much of the exact answer the vectors' index found, for each effort that was measured.
    op.create_table(
        "search_recall",
        sa.Column("ef_search", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("recall", sa.REAL(), nullable=False),
        sa.Column("surely", sa.REAL(), nullable=False),
        sa.Column("milliseconds", sa.REAL(), nullable=False),
        sa.Column("queries", sa.Integer(), nullable=False),
        sa.Column("vectors", sa.BigInteger(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("ef_search", name=op.f("pk_search_recall")),
    )


def _carry_over() -> None:
    op.execute("INSERT INTO search_texts SELECT file_id, owner_id, 0, words FROM search_documents")
    op.execute(
        "INSERT INTO search_vectors SELECT file_id, owner_id, embedding_version, embedding "
        "FROM search_documents WHERE embedding IS NOT NULL AND embedding_version IS NOT NULL"
    )


def _widen_documents() -> None:
    op.drop_index("ix_search_documents_words", "search_documents")
    op.drop_index("ix_search_documents_embedding", "search_documents")
    op.drop_column("search_documents", "words")
    op.drop_column("search_documents", "embedding")
    for name in ("artist", "description", "format", "content_hash"):
        op.add_column("search_documents", sa.Column(name, sa.Text(), nullable=True))
    # A default for the rows that are there; new rows bring their own values.
    for column, unknown in (
        (sa.Column("language", sa.Text(), nullable=False), "'samplemind'"),
        (sa.Column("wording", sa.Text(), nullable=False), "''"),
        (sa.Column("quality", sa.REAL(), nullable=False), "0"),
        (sa.Column("created_at", sa.DateTime(timezone=True), nullable=False), "'epoch'"),
        (sa.Column("index_version", sa.SmallInteger(), nullable=False), "0"),
        (sa.Column("fingerprint", sa.LargeBinary(), nullable=False), "''"),
    ):
        column.server_default = sa.DefaultClause(sa.text(unknown))
        op.add_column("search_documents", column)
        op.alter_column("search_documents", column.name, server_default=None)
    # `suggest`: names by their first letters, in the order of code points.
    op.execute(
        "CREATE INDEX ix_search_documents_name ON search_documents "
        '(lower(left(wording, 60)) COLLATE "C")'
    )


def _index_vectors() -> None:
    # `samplemind similar`: the nearest by cosine.
    op.create_index(
        "ix_search_vectors_embedding",
        "search_vectors",
        ["embedding"],
        postgresql_using="hnsw",
        postgresql_with={"m": 16, "ef_construction": 64},
        postgresql_ops={"embedding": "halfvec_cosine_ops"},
    )
    # `similar --owner`: all vectors of one owner compared, without a visit to the table.
    op.create_index(
        "ix_search_vectors_owner_id",
        "search_vectors",
        ["owner_id"],
        postgresql_include=["file_id", "embedding_version", "embedding"],
    )


def downgrade() -> None:
    op.execute(_PATIENCE)
    _narrow_documents()
    for table in _TABLES:
        op.drop_table(table)
    for language in _STEMMED:
        op.execute(f"DROP TEXT SEARCH CONFIGURATION samplemind_{language}")
        op.execute(f"DROP TEXT SEARCH DICTIONARY samplemind_{language}_stem")
    op.execute("DROP TEXT SEARCH CONFIGURATION samplemind_simple")
    op.execute("DROP EXTENSION IF EXISTS pgstattuple")


def _narrow_documents() -> None:
    op.drop_index("ix_search_documents_name", "search_documents")
    for name in (
        "artist",
        "description",
        "format",
        "content_hash",
        "language",
        "wording",
        "quality",
        "created_at",
        "index_version",
        "fingerprint",
    ):
        op.drop_column("search_documents", name)
    op.add_column("search_documents", sa.Column("words", postgresql.TSVECTOR(), nullable=True))
    op.add_column("search_documents", sa.Column("embedding", HALFVEC(128), nullable=True))
    op.execute("ALTER TABLE search_documents ALTER COLUMN embedding SET STORAGE PLAIN")
    op.execute(
        "UPDATE search_documents AS d SET words = coalesce(t.words, ''::tsvector), "
        "embedding = v.embedding "
        "FROM search_documents AS f LEFT JOIN search_texts AS t USING (file_id) "
        "LEFT JOIN (SELECT file_id, embedding FROM search_vectors "
        "UNION ALL SELECT file_id, embedding FROM search_vectors_fresh) AS v USING (file_id) "
        "WHERE d.file_id = f.file_id"
    )
    op.alter_column("search_documents", "words", nullable=False)
    op.create_index(
        "ix_search_documents_words", "search_documents", ["words"], postgresql_using="gin"
    )
    op.create_index(
        "ix_search_documents_embedding",
        "search_documents",
        ["embedding"],
        postgresql_using="hnsw",
        postgresql_with={"m": 16, "ef_construction": 64},
        postgresql_ops={"embedding": "halfvec_cosine_ops"},
    )
