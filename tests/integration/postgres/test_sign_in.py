import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import text

from samplemind.connections.postgres import ConnectionPool
from samplemind.errors import ConflictError, InvalidInputError, SecretError
from samplemind.ids import new_id
from samplemind.models.user import User
from samplemind.repositories.api_keys import ApiKeyRepository
from samplemind.repositories.oauth_accounts import OAuthAccountRepository, OAuthTokens
from samplemind.repositories.sessions import UserSessionRepository
from samplemind.repositories.users import UserRepository
from samplemind.security.cipher import TokenCipher
from samplemind.security.permissions import Permission
from samplemind.security.tokens import token_digest

_HOUR = timedelta(hours=1)
_TOKENS = OAuthTokens(SecretStr("access one"), SecretStr("refresh one"), scopes={"email"})


def _key() -> SecretStr:
    return SecretStr(Fernet.generate_key().decode())


async def _row_text(pool: ConnectionPool, table: str) -> str:
    """Return all that a reader of the table's rows would see."""
    async with pool.session() as session:
        rows = await session.scalars(
            text(
                f"SELECT row_to_json(t)::text || encode({table}_bytes, 'escape') "  # noqa: S608
                f"FROM {table} AS t, LATERAL (SELECT {_BYTES[table]}) AS b ({table}_bytes)"
            )
        )
        return "\n".join(rows)


_BYTES = {
    "api_keys": "key_hash",
    "user_sessions": "token_hash",
    "oauth_accounts": "access_token_encrypted || coalesce(refresh_token_encrypted, '')",
}


async def test_an_api_key_signs_in_until_it_is_revoked_and_counts_its_uses(
    pool: ConnectionPool, owner: User
) -> None:
    async with pool.session() as session:
        issued = await ApiKeyRepository(session).issue(
            owner.id, "laptop", [Permission.SAMPLES_READ], rate_limit_per_minute=60
        )
    for uses in (1, 2):
        async with pool.session() as session:
            found = await ApiKeyRepository(session).authenticate(issued.key)
            assert found is not None
            assert (found.id, found.times_used) == (issued.record.id, uses)
    async with pool.session() as session:
        keys = ApiKeyRepository(session)
        assert await keys.revoke(issued.record.id)
        assert not await keys.revoke(issued.record.id)
        assert await keys.authenticate(issued.key) is None
        assert await keys.authenticate(SecretStr("smk_guessed")) is None


async def test_an_expired_key_or_one_of_a_switched_off_user_does_not_sign_in(
    pool: ConnectionPool, owner: User
) -> None:
    async with pool.session() as session:
        keys = ApiKeyRepository(session)
        expiring = await keys.issue(owner.id, "a", [], expires_at=datetime.now(UTC) + _HOUR)
        lasting = await keys.issue(owner.id, "b", [])
        assert await keys.authenticate(expiring.key) is not None
        await session.execute(
            text(
                "UPDATE api_keys SET created_at = now() - interval '2 days', "
                "expires_at = now() - interval '1 day' WHERE id = :id"
            ),
            {"id": expiring.record.id},
        )
        assert await keys.authenticate(expiring.key) is None
        assert await keys.authenticate(lasting.key) is not None
        (await UserRepository(session).get(owner.id)).is_active = False
        await session.flush()
        assert await keys.authenticate(lasting.key) is None


async def test_only_what_cannot_be_turned_back_is_stored_of_keys_and_tokens(
    pool: ConnectionPool, owner: User
) -> None:
    async with pool.session() as session:
        key = await ApiKeyRepository(session).issue(owner.id, "laptop", [])
        signed_in = await UserSessionRepository(session).start(owner.id, _HOUR)
        accounts = OAuthAccountRepository(session, TokenCipher(_key()))
        account = await accounts.link(owner.id, "google", "g-1", _TOKENS)
    assert key.record.prefix in await _row_text(pool, "api_keys")
    for table, secret in (
        ("api_keys", key.key.get_secret_value().removeprefix(key.record.prefix)),
        ("user_sessions", signed_in.token.get_secret_value()),
        ("oauth_accounts", "access one"),
        ("oauth_accounts", "refresh one"),
    ):
        assert secret not in await _row_text(pool, table)
    shown = repr([key, key.record, signed_in, signed_in.record, account, _TOKENS, accounts])
    for token in (key.key, signed_in.token, _TOKENS.access, SecretStr("refresh one")):
        assert token.get_secret_value() not in shown
    assert repr(token_digest(key.key)) not in shown


async def test_a_token_in_clear_text_cannot_be_stored(pool: ConnectionPool, owner: User) -> None:
    with pytest.raises(InvalidInputError, match="access_token_is_encrypted"):
        async with pool.session() as session:
            await session.execute(
                text(
                    "INSERT INTO oauth_accounts (id, user_id, provider, provider_account_id, "
                    "access_token_encrypted, token_key_id) VALUES "
                    "(gen_random_uuid(), :user, 'google', 'g-1', 'clear text', 'k')"
                ),
                {"user": owner.id},
            )


async def test_questions_about_keys(pool: ConnectionPool, owner: User) -> None:
    soon, later = datetime.now(UTC) + _HOUR, datetime.now(UTC) + 48 * _HOUR
    async with pool.session() as session:
        keys = ApiKeyRepository(session)
        reader = (await keys.issue(owner.id, "a", [Permission.JOBS_READ], expires_at=soon)).record
        other = (await keys.issue(owner.id, "b", [], expires_at=later)).record
        assert {key.id for key in await keys.of_user(owner.id)} == {reader.id, other.id}
        assert [key.id for key in await keys.with_prefix(other.prefix)] == [other.id]
        assert [key.id for key in await keys.with_scope(Permission.JOBS_READ)] == [reader.id]
        assert [key.id for key in await keys.expiring(soon + _HOUR)] == [reader.id]
        await keys.revoke(reader.id)
        assert await keys.delete_revoked(datetime.now(UTC) - _HOUR) == 0
        assert await keys.delete_revoked(datetime.now(UTC) + _HOUR) == 1
        assert [key.id for key in await keys.of_user(owner.id)] == [other.id]


async def test_a_session_lasts_until_it_expires_or_is_revoked(
    pool: ConnectionPool, owner: User
) -> None:
    async with pool.session() as session:
        sessions = UserSessionRepository(session)
        first = await sessions.start(owner.id, _HOUR, device_name="laptop")
        second = await sessions.start(owner.id, 2 * _HOUR)
        expired = await sessions.start(owner.id, timedelta(microseconds=1))
    async with pool.session() as session:
        sessions = UserSessionRepository(session)
        found = await sessions.authenticate(first.token)
        assert found is not None
        assert found.device_name == "laptop"
        assert found.last_seen_at is not None
        assert await sessions.authenticate(expired.token) is None
        live = [one.id for one in await sessions.live_of_user(owner.id)]
        assert live == [second.record.id, first.record.id]
        assert await sessions.revoke_all(owner.id, "password changed", but=first.record.id) == 1
        assert await sessions.authenticate(second.token) is None
        assert await sessions.revoke(first.record.id, "signed out")
        assert await sessions.authenticate(first.token) is None
        assert len(await sessions.of_user(owner.id)) == 3
        assert await sessions.delete_ended(datetime.now(UTC) + _HOUR) == 3


async def test_sign_ins_from_one_address(pool: ConnectionPool, owner: User) -> None:
    here, there = ipaddress.ip_address("192.0.2.7"), ipaddress.ip_address("2001:db8::7")
    since = datetime.now(UTC) - _HOUR
    async with pool.session() as session:
        sessions = UserSessionRepository(session)
        await sessions.start(owner.id, _HOUR, ip_address=here)
        await sessions.start(owner.id, _HOUR, ip_address=there)
        found = await sessions.from_address(there, since)
        assert [one.ip_address for one in found] == [there]


async def test_keys_and_sessions_of_nobody_are_refused(pool: ConnectionPool) -> None:
    with pytest.raises(ConflictError):
        async with pool.session() as session:
            await ApiKeyRepository(session).issue(new_id(), "x", [])
    with pytest.raises(ConflictError):
        async with pool.session() as session:
            await UserSessionRepository(session).start(new_id(), _HOUR)


async def test_linking_again_renews_the_access_token_and_keeps_the_refresh_token(
    pool: ConnectionPool, owner: User
) -> None:
    async with pool.session() as session:
        accounts = OAuthAccountRepository(session, TokenCipher(_key()))
        first = await accounts.link(owner.id, "google", "g-1", _TOKENS)
        again = await accounts.link(owner.id, "google", "g-1", OAuthTokens(SecretStr("access two")))
        assert again.id == first.id
        opened = accounts.open_tokens(again)
        assert opened.access.get_secret_value() == "access two"
        assert opened.refresh is not None
        assert opened.refresh.get_secret_value() == "refresh one"


async def test_an_account_of_a_provider_belongs_to_one_user(
    pool: ConnectionPool, owner: User
) -> None:
    cipher = TokenCipher(_key())
    async with pool.session() as session:
        other = await UserRepository(session).add("other@example.org")
        await OAuthAccountRepository(session, cipher).link(owner.id, "google", "g-1", _TOKENS)
    for user, account in ((other, "g-1"), (owner, "g-2")):
        with pytest.raises(ConflictError):
            async with pool.session() as session:
                await OAuthAccountRepository(session, cipher).link(
                    user.id, "google", account, _TOKENS
                )


async def test_after_a_rotation_the_old_key_is_needed_no_more(
    pool: ConnectionPool, owner: User
) -> None:
    old, new = _key(), _key()
    async with pool.session() as session:
        accounts = OAuthAccountRepository(session, TokenCipher(old))
        for provider in ("google", "github", "gitlab"):
            await accounts.link(owner.id, provider, "1", _TOKENS)
    async with pool.session() as session:
        accounts = OAuthAccountRepository(session, TokenCipher(new, (old,)))
        # Signing in once more during the rotation keeps a refresh token that the old key closed.
        mixed = await accounts.link(owner.id, "google", "1", OAuthTokens(SecretStr("access two")))
        assert mixed.token_key_id == TokenCipher(old).key_id
    async with pool.session() as session:
        accounts = OAuthAccountRepository(session, TokenCipher(new, (old,)))
        assert [await accounts.rotate_keys(limit=2) for _ in range(3)] == [2, 1, 0]
    async with pool.session() as session:
        accounts = OAuthAccountRepository(session, TokenCipher(new))
        links = await accounts.of_user(owner.id)
        assert len(links) == 3
        for link in links:
            refresh = accounts.open_tokens(link).refresh
            assert refresh is not None
            assert refresh.get_secret_value() == "refresh one"
        with pytest.raises(SecretError):
            OAuthAccountRepository(session, TokenCipher(old)).open_tokens(links[0])


async def test_questions_about_linked_accounts(pool: ConnectionPool, owner: User) -> None:
    soon = datetime.now(UTC) + _HOUR
    async with pool.session() as session:
        accounts = OAuthAccountRepository(session, TokenCipher(_key()))
        renewable = await accounts.link(
            owner.id,
            "google",
            "g-1",
            OAuthTokens(SecretStr("a"), SecretStr("r"), soon),
            provider_email="Owner@Example.org",
        )
        await accounts.link(owner.id, "github", "h-1", OAuthTokens(SecretStr("a"), None, soon))
        assert await accounts.get("google", "g-1") is renewable
        assert await accounts.get("google", "g-2") is None
        assert list(await accounts.with_email("owner@example.org")) == [renewable]
        assert list(await accounts.refreshable(soon + _HOUR)) == [renewable]
        assert list(await accounts.refreshable(soon - _HOUR)) == []
