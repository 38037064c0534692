"""Initial schema: users and how they sign in, collections, the audit log.

Six aggregates in seven tables (a collection's items are a table of its own), the extensions that
search will need, and an index for each query. An index's comment names the query that it serves
(`\\di+` shows it): one whose query is gone can go too.
"""

from collections.abc import Sequence
from typing import NamedTuple

from alembic import op

revision: str = "001"
down_revision: str | Sequence[str] | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# pg_stat_statements can be read only where shared_preload_libraries names it as well.
_EXTENSIONS = ("vector", "pg_trgm", "btree_gin", "pg_stat_statements")

# Parents before children.
_TABLES = {
    "users": r"""
        CREATE TABLE users (
            id uuid CONSTRAINT pk_users PRIMARY KEY,
            email text NOT NULL,
            display_name text,
            password_hash text,
            roles text[] NOT NULL DEFAULT '{member}'::text[],
            is_active boolean NOT NULL DEFAULT true,
            files_ingested bigint NOT NULL DEFAULT 0,
            bytes_ingested bigint NOT NULL DEFAULT 0,
            searches_made bigint NOT NULL DEFAULT 0,
            last_seen_at timestamptz,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT ck_users_email_form
                CHECK (email ~ '^[^@\s]+@[^@\s]+$' AND length(email) <= 320),
            CONSTRAINT ck_users_password_hash_is_argon2id
                CHECK (starts_with(password_hash, '$argon2id$')),
            CONSTRAINT ck_users_roles_known
                CHECK (cardinality(roles) > 0 AND
                       roles <@ ARRAY['member', 'curator', 'operator', 'admin']::text[]),
            CONSTRAINT ck_users_counters_not_negative
                CHECK (files_ingested >= 0 AND bytes_ingested >= 0 AND searches_made >= 0)
        ) WITH (fillfactor = 90)""",
    "api_keys": """
        CREATE TABLE api_keys (
            id uuid CONSTRAINT pk_api_keys PRIMARY KEY,
            user_id uuid NOT NULL
                CONSTRAINT fk_api_keys_user_id_users REFERENCES users (id) ON DELETE CASCADE,
            name text NOT NULL,
            prefix text NOT NULL,
            key_hash bytea NOT NULL CONSTRAINT uq_api_keys_key_hash UNIQUE,
            scopes text[] NOT NULL DEFAULT '{}'::text[],
            rate_limit_per_minute integer,
            rate_limit_per_day integer,
            times_used bigint NOT NULL DEFAULT 0,
            last_used_at timestamptz,
            expires_at timestamptz,
            revoked_at timestamptz,
            created_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT ck_api_keys_name_length CHECK (length(name) BETWEEN 1 AND 200),
            CONSTRAINT ck_api_keys_prefix_length CHECK (length(prefix) BETWEEN 6 AND 16),
            CONSTRAINT ck_api_keys_key_hash_is_sha256 CHECK (octet_length(key_hash) = 32),
            CONSTRAINT ck_api_keys_rate_limits_positive
                CHECK (rate_limit_per_minute > 0 AND rate_limit_per_day > 0),
            CONSTRAINT ck_api_keys_times_used_not_negative CHECK (times_used >= 0),
            CONSTRAINT ck_api_keys_expires_after_creation CHECK (expires_at > created_at)
        ) WITH (fillfactor = 90)""",
    "oauth_accounts": """
        CREATE TABLE oauth_accounts (
            id uuid CONSTRAINT pk_oauth_accounts PRIMARY KEY,
            user_id uuid NOT NULL
                CONSTRAINT fk_oauth_accounts_user_id_users REFERENCES users (id) ON DELETE CASCADE,
            provider text NOT NULL,
            provider_account_id text NOT NULL,
            provider_email text,
            access_token_encrypted bytea NOT NULL,
            refresh_token_encrypted bytea,
            token_key_id text NOT NULL,
            token_expires_at timestamptz,
            scopes text[] NOT NULL DEFAULT '{}'::text[],
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT uq_oauth_accounts_provider_provider_account_id
                UNIQUE (provider, provider_account_id),
            CONSTRAINT uq_oauth_accounts_user_id_provider UNIQUE (user_id, provider),
            CONSTRAINT ck_oauth_accounts_provider_form
                CHECK (provider ~ '^[a-z][a-z0-9_-]{0,49}$'),
            CONSTRAINT ck_oauth_accounts_provider_account_id_given
                CHECK (provider_account_id <> ''),
            CONSTRAINT ck_oauth_accounts_access_token_is_encrypted
                CHECK (substring(access_token_encrypted FROM 1 FOR 6) = 'gAAAAA'::bytea),
            CONSTRAINT ck_oauth_accounts_refresh_token_is_encrypted
                CHECK (substring(refresh_token_encrypted FROM 1 FOR 6) = 'gAAAAA'::bytea)
        )""",
    "user_sessions": """
        CREATE TABLE user_sessions (
            id uuid CONSTRAINT pk_user_sessions PRIMARY KEY,
            user_id uuid NOT NULL
                CONSTRAINT fk_user_sessions_user_id_users REFERENCES users (id) ON DELETE CASCADE,
            token_hash bytea NOT NULL CONSTRAINT uq_user_sessions_token_hash UNIQUE,
            device_name text,
            user_agent text,
            ip_address inet,
            last_seen_at timestamptz,
            expires_at timestamptz NOT NULL,
            revoked_at timestamptz,
            revoked_reason text,
            created_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT ck_user_sessions_token_hash_is_sha256 CHECK (octet_length(token_hash) = 32),
            CONSTRAINT ck_user_sessions_expires_after_creation CHECK (expires_at > created_at),
            CONSTRAINT ck_user_sessions_reason_only_if_revoked
                CHECK (revoked_reason IS NULL OR revoked_at IS NOT NULL)
        ) WITH (fillfactor = 90)""",
    "audio_collections": """
        CREATE TABLE audio_collections (
            id uuid CONSTRAINT pk_audio_collections PRIMARY KEY,
            owner_id uuid NOT NULL
                CONSTRAINT fk_audio_collections_owner_id_users
                REFERENCES users (id) ON DELETE CASCADE,
            name text NOT NULL,
            description text,
            is_public boolean NOT NULL DEFAULT false,
            file_count integer NOT NULL DEFAULT 0,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT ck_audio_collections_name_length CHECK (length(name) BETWEEN 1 AND 200),
            CONSTRAINT ck_audio_collections_file_count_not_negative CHECK (file_count >= 0)
        ) WITH (fillfactor = 90)""",
    "audio_collection_items": """
        CREATE TABLE audio_collection_items (
            id uuid CONSTRAINT pk_audio_collection_items PRIMARY KEY,
            collection_id uuid NOT NULL
                CONSTRAINT fk_audio_collection_items_collection_id_audio_collections
                REFERENCES audio_collections (id) ON DELETE CASCADE,
            audio_file_id uuid NOT NULL,
            position integer NOT NULL,
            added_by uuid
                CONSTRAINT fk_audio_collection_items_added_by_users
                REFERENCES users (id) ON DELETE SET NULL,
            added_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT ck_audio_collection_items_position_not_negative CHECK (position >= 0)
        )""",
    "audit_logs": r"""
        CREATE TABLE audit_logs (
            id uuid NOT NULL,
            occurred_at timestamptz NOT NULL DEFAULT now(),
            actor_kind text NOT NULL,
            actor_id uuid,
            action text NOT NULL,
            resource_kind text NOT NULL,
            resource_id text,
            outcome text NOT NULL DEFAULT 'success',
            ip_address inet,
            request_id text,
            details jsonb NOT NULL DEFAULT '{}'::jsonb,
            CONSTRAINT pk_audit_logs PRIMARY KEY (id, occurred_at),
            CONSTRAINT ck_audit_logs_actor_kind_known
                CHECK (actor_kind IN ('user', 'api_key', 'system')),
            CONSTRAINT ck_audit_logs_actor_named
                CHECK (actor_kind = 'system' OR actor_id IS NOT NULL),
            CONSTRAINT ck_audit_logs_outcome_known
                CHECK (outcome IN ('success', 'denied', 'failed')),
            CONSTRAINT ck_audit_logs_action_form CHECK (action ~ '^[a-z_]+(\.[a-z_]+)+$')
        ) PARTITION BY RANGE (occurred_at)""",
}


class _Index(NamedTuple):
    name: str
    on: str
    serves: str
    unique: bool = False


_INDEXES = (
    _Index(
        "uq_users_email_lower",
        "users (lower(email))",
        "Sign-in, `ingest --owner`: the user with an address, whatever its case",
        unique=True,
    ),
    _Index("ix_users_roles", "users USING gin (roles)", "Users who have a role: roles @> {role}"),
    _Index(
        "ix_users_email_display_name_trgm",
        "users USING gin (email gin_trgm_ops, display_name gin_trgm_ops)",
        "Operators: users whose address or name contains a text (ILIKE)",
    ),
    _Index(
        "ix_users_inactive",
        "users (updated_at) WHERE NOT is_active",
        "Retention: accounts switched off before a time",
    ),
    _Index(
        "ix_api_keys_user_id_created_at",
        "api_keys (user_id, created_at)",
        "A user's keys, newest first; deleting a user",
    ),
    _Index(
        "ix_api_keys_prefix",
        "api_keys (prefix)",
        "The key of which a log or a leak shows the start",
    ),
    _Index(
        "ix_api_keys_scopes",
        "api_keys USING gin (scopes)",
        "Keys that hold a scope, before it is withdrawn: scopes @> {scope}",
    ),
    _Index(
        "ix_api_keys_expires_at",
        "api_keys (expires_at) WHERE revoked_at IS NULL AND expires_at IS NOT NULL",
        "Live keys that expire before a time, to warn their owners",
    ),
    _Index(
        "ix_api_keys_revoked_at",
        "api_keys (revoked_at) WHERE revoked_at IS NOT NULL",
        "Retention: keys revoked before a time",
    ),
    _Index(
        "ix_oauth_accounts_token_expires_at",
        "oauth_accounts (token_expires_at) WHERE refresh_token_encrypted IS NOT NULL",
        "Refreshing: tokens that expire before a time and can be renewed",
    ),
    _Index(
        "ix_oauth_accounts_token_key_id",
        "oauth_accounts (token_key_id, id)",
        "Key rotation: accounts whose tokens an older key closed, in order of id",
    ),
    _Index(
        "ix_oauth_accounts_provider_email_lower",
        "oauth_accounts (lower(provider_email))",
        "Linking: accounts with the address that a provider reports",
    ),
    _Index(
        "ix_user_sessions_user_id_created_at",
        "user_sessions (user_id, created_at)",
        "A user's sign-ins, newest first; deleting a user",
    ),
    _Index(
        "ix_user_sessions_user_id_live",
        "user_sessions (user_id, expires_at) WHERE revoked_at IS NULL",
        "Where a user is signed in now; signing out everywhere",
    ),
    _Index(
        "ix_user_sessions_expires_at",
        "user_sessions (expires_at)",
        "Retention: sessions expired before a time",
    ),
    _Index(
        "ix_user_sessions_revoked_at",
        "user_sessions (revoked_at) WHERE revoked_at IS NOT NULL",
        "Retention: sessions revoked before a time",
    ),
    _Index(
        "ix_user_sessions_ip_address_created_at",
        "user_sessions (ip_address, created_at)",
        "Abuse: sign-ins from an address since a time",
    ),
    _Index(
        "uq_audio_collections_owner_id_name",
        "audio_collections (owner_id, lower(name))",
        "An owner's collection by name, whatever its case",
        unique=True,
    ),
    _Index(
        "ix_audio_collections_owner_id_updated_at",
        "audio_collections (owner_id, updated_at)",
        "An owner's collections, last changed first",
    ),
    _Index(
        "ix_audio_collections_public",
        "audio_collections (updated_at) WHERE is_public",
        "Public collections, last changed first",
    ),
    _Index(
        "ix_audio_collections_public_name_trgm",
        "audio_collections USING gin (name gin_trgm_ops) WHERE is_public",
        "Public collections whose name contains a text (ILIKE)",
    ),
    _Index(
        "ix_audio_collections_owner_id_name_trgm",
        "audio_collections USING gin (owner_id, name gin_trgm_ops)",
        "An owner's collections whose name contains a text (ILIKE)",
    ),
    _Index(
        "uq_audio_collection_items_collection_id_audio_file_id",
        "audio_collection_items (collection_id, audio_file_id)",
        "Adding a file that may be there already; deleting a collection",
        unique=True,
    ),
    _Index(
        "ix_audio_collection_items_collection_id_position",
        "audio_collection_items (collection_id, position, id)",
        "A collection's files in order, page by page",
    ),
    _Index(
        "ix_audio_collection_items_audio_file_id",
        "audio_collection_items (audio_file_id)",
        "The collections that a file is in; taking a deleted file out of all",
    ),
    _Index(
        "ix_audio_collection_items_added_by",
        "audio_collection_items (added_by) WHERE added_by IS NOT NULL",
        "Deleting a user who added files to other users' collections",
    ),
    _Index(
        "ix_audit_logs_occurred_at",
        "audit_logs (occurred_at)",
        "Export: everything in a period, newest first",
    ),
    _Index(
        "ix_audit_logs_actor_id_occurred_at",
        "audit_logs (actor_id, occurred_at)",
        "What a user or key did, newest first",
    ),
    _Index(
        "ix_audit_logs_resource_occurred_at",
        "audit_logs (resource_kind, resource_id, occurred_at)",
        "What happened to a thing, newest first",
    ),
    _Index(
        "ix_audit_logs_action_occurred_at",
        "audit_logs (action, occurred_at)",
        "Every time that an action was done, newest first",
    ),
    _Index(
        "ix_audit_logs_not_successful",
        "audit_logs (occurred_at) WHERE outcome <> 'success'",
        "What was denied or failed since a time",
    ),
    _Index(
        "ix_audit_logs_request_id",
        "audit_logs (request_id) WHERE request_id IS NOT NULL",
        "Everything that one request did",
    ),
    _Index(
        "ix_audit_logs_details",
        "audit_logs USING gin (details jsonb_path_ops)",
        "Entries with a detail: details @> {name: value}",
    ),
)

# Indexes that constraints bring along.
_CONSTRAINT_INDEXES = {
    "uq_api_keys_key_hash": "Signing in with a key: the key with this hash",
    "uq_user_sessions_token_hash": "Every request: the session with this token hash",
    "uq_oauth_accounts_provider_provider_account_id": (
        "Sign-in through a provider: the account with its id there"
    ),
    "uq_oauth_accounts_user_id_provider": "A user's linked accounts; deleting a user",
}

# A change is added to the count, never counted anew: under READ COMMITTED a count would miss what
# another transaction has not committed yet. The row lock makes concurrent changes queue.
_FILE_COUNT = """
    CREATE FUNCTION audio_collections_keep_file_count() RETURNS trigger
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $body$
    DECLARE
        changed uuid[];
        deltas integer[];
    BEGIN
        IF TG_OP = 'TRUNCATE' THEN
            UPDATE audio_collections SET file_count = 0 WHERE file_count <> 0;
            RETURN NULL;
        ELSIF TG_OP = 'INSERT' THEN
            SELECT array_agg(collection_id), array_agg(delta) INTO changed, deltas FROM (
                SELECT collection_id, count(*)::integer AS delta FROM added GROUP BY 1) AS d;
        ELSIF TG_OP = 'DELETE' THEN
            SELECT array_agg(collection_id), array_agg(delta) INTO changed, deltas FROM (
                SELECT collection_id, -count(*)::integer AS delta FROM removed GROUP BY 1) AS d;
        ELSE
            SELECT array_agg(collection_id), array_agg(delta) INTO changed, deltas FROM (
                SELECT collection_id, sum(one)::integer AS delta FROM (
                    SELECT collection_id, 1 AS one FROM added
                    UNION ALL SELECT collection_id, -1 FROM removed) AS moved
                GROUP BY 1 HAVING sum(one) <> 0) AS d;
        END IF;
        -- Locked in one order, or two statements over the same collections could deadlock.
        PERFORM FROM audio_collections WHERE id = ANY (changed) ORDER BY id FOR NO KEY UPDATE;
        UPDATE audio_collections AS c SET file_count = c.file_count + d.delta
            FROM unnest(changed, deltas) AS d (id, delta) WHERE c.id = d.id;
        RETURN NULL;
    END $body$"""

_FILE_COUNT_GUARD = """
    CREATE FUNCTION audio_collections_refuse_file_count() RETURNS trigger
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $body$
    BEGIN
        RAISE EXCEPTION 'audio_collections.file_count is kept by triggers and cannot be set'
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, COLUMN = 'file_count';
    END $body$"""

_AUDIT_GUARD = """
    CREATE FUNCTION audit_logs_refuse_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $body$
    BEGIN
        RAISE EXCEPTION 'audit_logs is append-only: % is refused', TG_OP
            USING ERRCODE = 'insufficient_privilege', TABLE = TG_TABLE_NAME;
    END $body$"""

_TRIGGERS = (
    """CREATE TRIGGER file_count_after_insert AFTER INSERT ON audio_collection_items
       REFERENCING NEW TABLE AS added
       FOR EACH STATEMENT EXECUTE FUNCTION audio_collections_keep_file_count()""",
    """CREATE TRIGGER file_count_after_delete AFTER DELETE ON audio_collection_items
       REFERENCING OLD TABLE AS removed
       FOR EACH STATEMENT EXECUTE FUNCTION audio_collections_keep_file_count()""",
    """CREATE TRIGGER file_count_after_update AFTER UPDATE ON audio_collection_items
       REFERENCING OLD TABLE AS removed NEW TABLE AS added
       FOR EACH STATEMENT EXECUTE FUNCTION audio_collections_keep_file_count()""",
    """CREATE TRIGGER file_count_after_truncate AFTER TRUNCATE ON audio_collection_items
       FOR EACH STATEMENT EXECUTE FUNCTION audio_collections_keep_file_count()""",
    # At depth 0 the statement is a client's own; the trigger above writes at depth 1.
    """CREATE TRIGGER file_count_not_inserted BEFORE INSERT ON audio_collections
       FOR EACH ROW WHEN (NEW.file_count <> 0 AND pg_trigger_depth() = 0)
       EXECUTE FUNCTION audio_collections_refuse_file_count()""",
    """CREATE TRIGGER file_count_not_updated BEFORE UPDATE OF file_count ON audio_collections
       FOR EACH ROW WHEN (NEW.file_count <> OLD.file_count AND pg_trigger_depth() = 0)
       EXECUTE FUNCTION audio_collections_refuse_file_count()""",
    # A row trigger is handed on to every partition, present and future; one for TRUNCATE is not.
    """CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_logs
       FOR EACH ROW EXECUTE FUNCTION audit_logs_refuse_change()""",
    """CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON audit_logs
       FOR EACH STATEMENT EXECUTE FUNCTION audit_logs_refuse_change()""",
    """CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON audit_logs_default
       FOR EACH STATEMENT EXECUTE FUNCTION audit_logs_refuse_change()""",
)

_FUNCTIONS = (
    "audio_collections_keep_file_count",
    "audio_collections_refuse_file_count",
    "audit_logs_refuse_change",
)


def upgrade() -> None:
    for extension in _EXTENSIONS:
        op.execute(f"CREATE EXTENSION IF NOT EXISTS {extension}")
    for statement in _TABLES.values():
        op.execute(statement)
    op.execute("CREATE TABLE audit_logs_default PARTITION OF audit_logs DEFAULT")
    for index in _INDEXES:
        op.execute(f"CREATE {'UNIQUE ' if index.unique else ''}INDEX {index.name} ON {index.on}")
        _comment(index.name, index.serves)
    for name, serves in _CONSTRAINT_INDEXES.items():
        _comment(name, serves)
    for statement in (_FILE_COUNT, _FILE_COUNT_GUARD, _AUDIT_GUARD, *_TRIGGERS):
        op.execute(statement)
    # The triggers bind a superuser too; without the privilege nobody else gets as far.
    op.execute(
        "REVOKE UPDATE, DELETE, TRUNCATE ON audit_logs, audit_logs_default "
        "FROM PUBLIC, CURRENT_USER"
    )


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.execute(f"DROP TABLE {table}")
    for function in _FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}()")
    for extension in reversed(_EXTENSIONS):
        op.execute(f"DROP EXTENSION IF EXISTS {extension}")


def _comment(index: str, serves: str) -> None:
    quoted = serves.replace("'", "''")
    op.execute(f"COMMENT ON INDEX {index} IS '{quoted}'")
