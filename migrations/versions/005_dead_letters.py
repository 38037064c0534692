"""Dead letters: jobs that will not run again by themselves.

Revision ID: 005
Revises: 003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "005"
down_revision = "004"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(), nullable=True),
        sa.Column("schema_version", sa.Integer(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("occurrences", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("first_failed_at", _TIME, nullable=False),
        sa.Column("last_failed_at", _TIME, nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("generation", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("replay_job_id", sa.Uuid(), nullable=True),
        sa.Column("published_at", _TIME, nullable=True),
        sa.Column("closed_at", _TIME, nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('open', 'replayed', 'discarded')",
            name=op.f("ck_dead_letters_state_known"),
        ),
        sa.CheckConstraint(
            "(state = 'open') = (closed_at IS NULL)",
            name=op.f("ck_dead_letters_closed_at_named"),
        ),
        sa.CheckConstraint(
            "state <> 'replayed' OR replay_job_id IS NOT NULL",
            name=op.f("ck_dead_letters_replay_named"),
        ),
        sa.CheckConstraint(
            "state <> 'discarded' OR reason IS NOT NULL",
            name=op.f("ck_dead_letters_reason_named"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
    )
    op.create_index(
        "ix_dead_letters_state_last_failed_at", "dead_letters", ["state", "last_failed_at"]
    )
    op.create_index(
        "ix_dead_letters_task_last_failed_at", "dead_letters", ["task", "last_failed_at"]
    )
    op.create_index("ix_dead_letters_job_id", "dead_letters", ["job_id"])
    op.create_index(
        "ix_dead_letters_unpublished",
        "dead_letters",
        ["closed_at"],
        postgresql_where=sa.text("state = 'replayed' AND published_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("dead_letters")
