"""Names by their owner and first letters, so that `suggest` reads no name of anybody else.

Revision ID: 007
Revises: 006
"""

from alembic import op

revision = "007"
down_revision = "006"
branch_labels = None
depends_on = None

# A million names take longer than a query of a service may.
_PATIENCE = "SET LOCAL statement_timeout = 0"
_INDEX = "ix_search_documents_owner_id_name"


def upgrade() -> None:
    op.execute(_PATIENCE)
    op.execute(
        f"CREATE INDEX {_INDEX} ON search_documents "
        '(owner_id, lower(left(wording, 60)) COLLATE "C")'
    )


def downgrade() -> None:
    op.drop_index(_INDEX, "search_documents")
