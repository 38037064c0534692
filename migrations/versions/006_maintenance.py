"""Maintenance: runs of periodic jobs, legal holds, archives of audit entries, snapshots.

The guard of the audit log learns one exception: an entry that a verified archive covers may go.
Everything else is refused as before, to a superuser as well.

Revision ID: 009
Revises: 003
"""

from alembic import op

revision = "006"
down_revision = "005"
branch_labels = None
depends_on = None

_TABLES = {
    "periodic_runs": """
        CREATE TABLE periodic_runs (
            id uuid CONSTRAINT pk_periodic_runs PRIMARY KEY,
            name text NOT NULL,
            slot text NOT NULL,
            job_id text NOT NULL,
            host text NOT NULL,
            attempts integer NOT NULL DEFAULT 1,
            started_at timestamptz NOT NULL DEFAULT now(),
            ended_at timestamptz,
            outcome text,
            seconds double precision,
            figures jsonb NOT NULL DEFAULT '{}'::jsonb,
            error text,
            CONSTRAINT uq_periodic_runs_name_slot UNIQUE (name, slot),
            CONSTRAINT ck_periodic_runs_outcome_known
                CHECK (outcome IN ('succeeded', 'failed', 'retried'))
        )""",
    "legal_holds": """
        CREATE TABLE legal_holds (
            id uuid CONSTRAINT pk_legal_holds PRIMARY KEY,
            user_id uuid,
            tag text,
            reason text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            released_at timestamptz,
            CONSTRAINT ck_legal_holds_names_one CHECK (num_nonnulls(user_id, tag) = 1),
            CONSTRAINT ck_legal_holds_reason_given CHECK (length(reason) > 0)
        )""",
    "audit_archives": """
        CREATE TABLE audit_archives (
            id uuid CONSTRAINT pk_audit_archives PRIMARY KEY,
            key text NOT NULL CONSTRAINT uq_audit_archives_key UNIQUE,
            sha256 text NOT NULL,
            size_bytes bigint NOT NULL,
            rows bigint NOT NULL,
            first_at timestamptz NOT NULL,
            last_at timestamptz NOT NULL,
            verified_at timestamptz,
            deleted_at timestamptz,
            created_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT ck_audit_archives_in_order CHECK (last_at >= first_at)
        )""",
    "statement_snapshots": """
        CREATE TABLE statement_snapshots (
            taken_at timestamptz NOT NULL,
            query_id bigint NOT NULL,
            counted_since timestamptz,
            query text NOT NULL,
            calls bigint NOT NULL,
            total_ms double precision NOT NULL,
            rows bigint NOT NULL,
            blocks_read bigint NOT NULL,
            blocks_hit bigint NOT NULL,
            blocks_spilled bigint NOT NULL,
            CONSTRAINT pk_statement_snapshots PRIMARY KEY (taken_at, query_id)
        )""",
}
# name, definition, the query that it serves
_INDEXES = (
    (
        "ix_periodic_runs_name_started_at",
        "periodic_runs (name, started_at)",
        "`schedule list`, watchdog: the last runs of a job",
    ),
    (
        "ix_periodic_runs_started_at",
        "periodic_runs (started_at)",
        "Retention: runs started before a time",
    ),
    (
        "ix_legal_holds_active",
        "legal_holds (created_at) WHERE released_at IS NULL",
        "Retention: the holds that count",
    ),
    (
        "ix_audit_archives_verified",
        "audit_archives (first_at, last_at) WHERE verified_at IS NOT NULL",
        "The guard of audit_logs: whether an archive covers an entry",
    ),
    (
        "ix_audit_archives_undeleted",
        "audit_archives (created_at) WHERE deleted_at IS NULL",
        "Retention: archives whose entries may not be gone yet",
    ),
    (
        "ix_statement_snapshots_query_id_taken_at",
        "statement_snapshots (query_id, taken_at)",
        "`db slow --trend`: one statement's figures over time",
    ),
)
_CONSTRAINT_INDEXES = {
    "uq_periodic_runs_name_slot": "Starting a slot: its run, however often it is tried",
    "uq_audit_archives_key": "Archiving again after a crash: the archive of this key",
}
_GUARD = """
    CREATE OR REPLACE FUNCTION audit_logs_refuse_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $body$
    BEGIN
        {exception}
        RAISE EXCEPTION 'audit_logs is append-only: % is refused', TG_OP
            USING ERRCODE = 'insufficient_privilege', TABLE = TG_TABLE_NAME;
    END $body$"""
_ARCHIVED = """IF TG_OP = 'DELETE' THEN
            IF EXISTS (
                SELECT FROM audit_archives AS a WHERE a.verified_at IS NOT NULL
                AND OLD.occurred_at BETWEEN a.first_at AND a.last_at
            ) THEN
                RETURN OLD;
            END IF;
        END IF;"""


def upgrade() -> None:
    for statement in _TABLES.values():
        op.execute(statement)
    for name, on, serves in _INDEXES:
        op.execute(f"CREATE INDEX {name} ON {on}")
        _comment(name, serves)
    for name, serves in _CONSTRAINT_INDEXES.items():
        _comment(name, serves)
    op.execute(_GUARD.format(exception=_ARCHIVED))


def downgrade() -> None:
    op.execute(_GUARD.format(exception=""))
    for table in reversed(_TABLES):
        op.execute(f"DROP TABLE {table}")


def _comment(index: str, serves: str) -> None:
    quoted = serves.replace("'", "''")
    op.execute(f"COMMENT ON INDEX {index} IS '{quoted}'")
