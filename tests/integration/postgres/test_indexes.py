"""Each index of the first migration is used by the query that its comment names.

The queries are the repositories' own, taken down as they are sent and then explained.
"""

import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Engine, Executable, event, text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.postgres import ConnectionPool
from samplemind.ids import new_id
from samplemind.repositories.api_keys import ApiKeyRepository
from samplemind.repositories.audit import AuditLogRepository
from samplemind.repositories.collections import AudioCollectionRepository
from samplemind.repositories.oauth_accounts import OAuthAccountRepository
from samplemind.repositories.sessions import UserSessionRepository
from samplemind.repositories.users import UserRepository
from samplemind.security.cipher import TokenCipher
from samplemind.security.permissions import Permission, Role

Query = Callable[[AsyncSession], Awaitable[object]]
Statement = tuple[str, Any]

_TABLES = (
    "users",
    "api_keys",
    "oauth_accounts",
    "user_sessions",
    "audio_collections",
    "audio_collection_items",
    "audit_logs",
)
_INDEXES = text(
    """
    SELECT i.relname, obj_description(i.oid) FROM pg_index
    JOIN pg_class AS i ON i.oid = indexrelid JOIN pg_class AS t ON t.oid = indrelid
    WHERE t.relname = ANY(:tables) AND NOT indisprimary
    """
)
# In a plan a partitioned index goes by the names of its parts.
_PARTS = text(
    """
    SELECT part.relname, whole.relname FROM pg_inherits
    JOIN pg_class AS part ON part.oid = inhrelid JOIN pg_class AS whole ON whole.oid = inhparent
    WHERE whole.relkind = 'I'
    """
)

# What was inserted last waits in a list that a search reads whole, until it is sorted in.
_TIDY_GIN = text(
    """
    SELECT gin_clean_pending_list(i.oid) FROM pg_class AS i JOIN pg_am ON pg_am.oid = relam
    WHERE amname = 'gin' AND relkind = 'i' AND relnamespace = 'public'::regnamespace
    """
)
_OWNER_OF_MANY = text("SELECT owner_id FROM audio_collections GROUP BY 1 ORDER BY count(*) DESC")

# Rows enough that the planner has a reason to choose between two indexes that would both do.
_ROWS = (
    """
    INSERT INTO users (id, email, display_name, is_active, roles)
    SELECT gen_random_uuid(), 'user' || n || '@example.org', md5(n::text), n % 50 <> 0,
           CASE WHEN n % 50 = 0 THEN '{curator}'::text[] ELSE '{member}'::text[] END
    FROM generate_series(1, 2000) AS n
    """,
    """
    INSERT INTO api_keys (id, user_id, name, prefix, key_hash, scopes, created_at, expires_at,
                          revoked_at)
    SELECT gen_random_uuid(), id, 'k', 'smk_' || left(md5(id::text), 6), sha256(id::text::bytea),
           CASE WHEN n % 50 = 0 THEN '{jobs:read}'::text[] ELSE '{samples:read}'::text[] END,
           now() - n * interval '1 hour', now() + n * interval '1 hour',
           CASE WHEN n % 20 = 0 THEN now() - n * interval '1 minute' END
    FROM (SELECT id, row_number() OVER () AS n FROM users) AS u
    """,
    """
    INSERT INTO oauth_accounts (id, user_id, provider, provider_account_id, provider_email,
                                access_token_encrypted, refresh_token_encrypted, token_key_id,
                                token_expires_at)
    SELECT gen_random_uuid(), id, 'google', n, email, 'gAAAAA', 'gAAAAA', 'key' || n % 100,
           now() + n * interval '1 hour'
    FROM (SELECT id, email, row_number() OVER () AS n FROM users) AS u
    """,
    """
    INSERT INTO user_sessions (id, user_id, token_hash, ip_address, created_at, expires_at,
                               revoked_at)
    SELECT gen_random_uuid(), id, sha256((id::text || n)::bytea), '192.0.2.0'::inet + m % 200,
           now() - m * interval '1 hour', now() - m * interval '1 hour' + interval '30 days',
           CASE WHEN m % 4 = 0 THEN now() - m * interval '1 minute' END
    FROM (SELECT id, n, row_number() OVER () AS m FROM users, generate_series(1, 3) AS n) AS u
    """,
    """
    INSERT INTO audio_collections (id, owner_id, name, is_public, updated_at)
    SELECT gen_random_uuid(), id, md5(id::text || n), n = 1, now() - m * interval '1 minute'
    FROM (SELECT id, n, row_number() OVER () AS m FROM users, generate_series(1, 5) AS n) AS u
    """,
    """
    INSERT INTO audio_collections (id, owner_id, name)
    SELECT gen_random_uuid(), owner_id, md5(n::text)
    FROM (SELECT id AS owner_id FROM users LIMIT 1) AS u, generate_series(1, 2000) AS n
    """,
    """
    INSERT INTO audio_collection_items (id, collection_id, audio_file_id, position, added_by)
    SELECT gen_random_uuid(), id, gen_random_uuid(), n, CASE WHEN n = 1 THEN owner_id END
    FROM (SELECT id, owner_id FROM audio_collections LIMIT 500) AS c, generate_series(1, 10) AS n
    """,
    """
    INSERT INTO audit_logs (id, occurred_at, actor_kind, actor_id, action, resource_kind,
                            resource_id, outcome, request_id, details)
    SELECT gen_random_uuid(), now() - n * interval '1 hour', 'user', gen_random_uuid(),
           'area.action_' || chr(97 + n % 26), 'thing', n, CASE WHEN n % 40 = 0 THEN 'denied'
           ELSE 'success' END, 'r-' || n, jsonb_build_object('number', n)
    FROM generate_series(1, 3000) AS n
    """,
)


def _queries(owner: UUID) -> dict[str, Query]:
    now = datetime.now(UTC)
    day, some = timedelta(days=1), new_id()
    cipher = TokenCipher(
        SecretStr(Fernet.generate_key().decode()), (SecretStr(Fernet.generate_key().decode()),)
    )
    token = SecretStr("t")
    keys, sessions, log = ApiKeyRepository, UserSessionRepository, AuditLogRepository
    users, collections = UserRepository, AudioCollectionRepository

    def accounts(session: AsyncSession) -> OAuthAccountRepository:
        return OAuthAccountRepository(session, cipher)

    async def user_who_added_files(session: AsyncSession) -> None:
        await session.execute(
            text("SELECT FROM audio_collection_items WHERE added_by = :user"), {"user": some}
        )

    return {
        "uq_users_email_lower": lambda s: users(s).get_by_email("user7@example.org"),
        "ix_users_roles": lambda s: users(s).with_role(Role.CURATOR),
        "ix_users_email_display_name_trgm": lambda s: users(s).search("user199"),
        "ix_users_inactive": lambda s: users(s).inactive_since(now - day),
        "uq_api_keys_key_hash": lambda s: keys(s).authenticate(token),
        "ix_api_keys_user_id_created_at": lambda s: keys(s).of_user(some),
        "ix_api_keys_prefix": lambda s: keys(s).with_prefix("smk_abcdef"),
        "ix_api_keys_scopes": lambda s: keys(s).with_scope(Permission.JOBS_READ),
        "ix_api_keys_expires_at": lambda s: keys(s).expiring(now + day),
        "ix_api_keys_revoked_at": lambda s: keys(s).delete_revoked(now - day),
        "uq_oauth_accounts_provider_provider_account_id": lambda s: accounts(s).get("google", "7"),
        "uq_oauth_accounts_user_id_provider": lambda s: accounts(s).of_user(some),
        "ix_oauth_accounts_token_expires_at": lambda s: accounts(s).refreshable(now + day),
        "ix_oauth_accounts_token_key_id": lambda s: accounts(s).rotate_keys(),
        "ix_oauth_accounts_provider_email_lower": lambda s: accounts(s).with_email("a@b.c"),
        "uq_user_sessions_token_hash": lambda s: sessions(s).authenticate(token),
        "ix_user_sessions_user_id_created_at": lambda s: sessions(s).of_user(some),
        "ix_user_sessions_user_id_live": lambda s: sessions(s).live_of_user(some),
        "ix_user_sessions_expires_at": lambda s: sessions(s).delete_ended(now - 200 * day),
        "ix_user_sessions_revoked_at": lambda s: sessions(s).delete_ended(now - 200 * day),
        "ix_user_sessions_ip_address_created_at": lambda s: sessions(s).from_address(
            ipaddress.ip_address("192.0.2.7"), now - day
        ),
        "uq_audio_collections_owner_id_name": lambda s: collections(s).get_by_name(some, "Kicks"),
        "ix_audio_collections_owner_id_updated_at": lambda s: collections(s).of_owner(some),
        "ix_audio_collections_public": lambda s: collections(s).public(),
        "ix_audio_collections_public_name_trgm": lambda s: collections(s).search("abcde"),
        "ix_audio_collections_owner_id_name_trgm": lambda s: collections(s).search(
            "abcde", owner_id=owner
        ),
        "uq_audio_collection_items_collection_id_audio_file_id": lambda s: collections(s).add_files(
            some, []
        ),
        "ix_audio_collection_items_collection_id_position": lambda s: collections(s).items(some),
        "ix_audio_collection_items_audio_file_id": lambda s: collections(s).containing(some),
        "ix_audio_collection_items_added_by": user_who_added_files,
        "ix_audit_logs_occurred_at": lambda s: log(s).between(now - day, now),
        "ix_audit_logs_actor_id_occurred_at": lambda s: log(s).of_actor(some),
        "ix_audit_logs_resource_occurred_at": lambda s: log(s).of_resource("thing", "7"),
        "ix_audit_logs_action_occurred_at": lambda s: log(s).of_action("area.action_b"),
        "ix_audit_logs_not_successful": lambda s: log(s).problems(now - 20 * day),
        "ix_audit_logs_request_id": lambda s: log(s).of_request("r-7"),
        "ix_audit_logs_details": lambda s: log(s).with_details({"number": 7}),
    }


@contextmanager
def _taken_down(engine: Engine) -> Iterator[list[Statement]]:
    sent: list[Statement] = []

    def take_down(_c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        sent.append((statement, values))

    event.listen(engine, "before_cursor_execute", take_down)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", take_down)


async def _plan(session: AsyncSession, query: Query) -> str:
    connection = await session.connection()
    with _taken_down(connection.sync_connection.engine) as sent:  # type: ignore[union-attr]
        await query(session)
    lines: list[str] = []
    for statement, values in sent:
        explained = await connection.exec_driver_sql(f"EXPLAIN {statement}", values)
        lines += explained.scalars()
    return "\n".join(lines)


async def _pairs(session: AsyncSession, query: Executable) -> dict[str, str]:
    return {name: value for name, value in await session.execute(query)}  # noqa: C416 - rows


async def test_every_index_serves_the_query_that_its_comment_names(pool: ConnectionPool) -> None:
    async with pool.session() as session:
        for rows in _ROWS:
            await session.execute(text(rows))
        for table in _TABLES:
            await session.execute(text(f"ANALYZE {table}"))
        await session.execute(_TIDY_GIN)
        owner = await session.scalar(_OWNER_OF_MANY)
        # Small tables are read whole sooner than by any index; large ones are not.
        await session.execute(text("SET LOCAL enable_seqscan = off"))
        comments = await _pairs(session, _INDEXES.bindparams(tables=list(_TABLES)))
        parts = await _pairs(session, _PARTS)
        queries = _queries(owner)
        unused = {}
        for index, query in queries.items():
            plan = await _plan(session, query)
            if index not in {parts.get(word, word) for word in re.findall(r"\w+", plan)}:
                unused[index] = plan
        await session.rollback()
    assert comments.keys() == queries.keys()
    assert len(comments) >= 25
    assert [index for index, comment in comments.items() if not comment] == []
    assert unused == {}, "\n\n".join(f"{name}:\n{plan}" for name, plan in unused.items())
