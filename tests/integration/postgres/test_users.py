import asyncio
from datetime import UTC, datetime, timedelta

import argon2
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from samplemind.connections.postgres import ConnectionPool
from samplemind.errors import ConflictError, InvalidInputError, NotFoundError
from samplemind.ids import new_id
from samplemind.models.user import User
from samplemind.repositories.users import UserRepository
from samplemind.security.permissions import Permission, Role

_PASSWORD = SecretStr("correct horse battery staple")


async def test_a_password_signs_its_user_in_whatever_the_case_of_the_address(
    pool: ConnectionPool,
) -> None:
    async with pool.session() as session:
        added = await UserRepository(session).add("Ann@Example.org", password=_PASSWORD)
    async with pool.session() as session:
        users = UserRepository(session)
        found = await users.authenticate(" ann@EXAMPLE.org ", _PASSWORD)
        assert found is not None
        assert found.id == added.id
        assert await users.authenticate("ann@example.org", SecretStr("wrong " * 3)) is None
        assert await users.authenticate("bob@example.org", _PASSWORD) is None


async def test_an_owner_made_by_ingest_cannot_sign_in(pool: ConnectionPool) -> None:
    async with pool.session() as session:
        users = UserRepository(session)
        owner = await users.get_or_create_owner("owner@example.org")
        assert owner.password_hash is None
        assert await users.authenticate("owner@example.org", _PASSWORD) is None
        assert await users.authenticate("owner@example.org", SecretStr("")) is None


async def test_an_account_that_is_switched_off_cannot_sign_in_and_may_nothing(
    pool: ConnectionPool,
) -> None:
    async with pool.session() as session:
        users = UserRepository(session)
        user = await users.add("ann@example.org", password=_PASSWORD, roles=[Role.ADMIN])
        assert Permission.USERS_MANAGE in user.permissions
        user.is_active = False
        await session.flush()
        assert await users.authenticate("ann@example.org", _PASSWORD) is None
        assert user.permissions == frozenset()


async def test_a_new_password_replaces_the_old_one(pool: ConnectionPool) -> None:
    new = SecretStr("an entirely other phrase")
    async with pool.session() as session:
        users = UserRepository(session)
        user = await users.add("ann@example.org", password=_PASSWORD)
        await users.set_password(user, new)
        assert await users.authenticate("ann@example.org", _PASSWORD) is None
        assert await users.authenticate("ann@example.org", new) is user


async def test_a_hash_with_older_parameters_is_renewed_at_sign_in(pool: ConnectionPool) -> None:
    weak = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(
        _PASSWORD.get_secret_value()
    )
    async with pool.session() as session:
        users = UserRepository(session)
        user = await users.add("ann@example.org", password=_PASSWORD)
        user.password_hash = weak
        await session.flush()
        assert await users.authenticate("ann@example.org", _PASSWORD) is user
    async with pool.session() as session:
        stored = (await UserRepository(session).get(user.id)).password_hash
    assert stored is not None
    assert stored != weak
    assert "m=65536,t=3,p=4" in stored


async def test_an_address_is_taken_in_every_case(pool: ConnectionPool) -> None:
    async with pool.session() as session:
        users = UserRepository(session)
        await users.add("ann@example.org")
        with pytest.raises(ConflictError):
            await users.add("ANN@example.org")


async def test_callers_at_once_get_one_owner(pool: ConnectionPool) -> None:
    async def ask(number: int) -> User:
        async with pool.session() as session:
            email = "owner@example.org" if number % 2 else "Owner@Example.org"
            return await UserRepository(session).get_or_create_owner(email)

    owners = await asyncio.gather(*(ask(number) for number in range(20)))
    assert len({owner.id for owner in owners}) == 1


@pytest.mark.parametrize("email", ["", "nobody", "two words@example.org", "a@", "x@" + "y" * 320])
async def test_what_is_no_address_is_refused(pool: ConnectionPool, email: str) -> None:
    with pytest.raises(InvalidInputError):
        async with pool.session() as session:
            await UserRepository(session).get_or_create_owner(email)


async def test_only_an_argon2id_hash_and_known_roles_can_be_stored(pool: ConnectionPool) -> None:
    for column, value, check in (
        ("password_hash", "'plain'", "password_hash_is_argon2id"),
        ("roles", "'{king}'", "roles_known"),
        ("roles", "'{}'", "roles_known"),
        ("files_ingested", "-1", "counters_not_negative"),
    ):
        with pytest.raises(InvalidInputError, match=check):
            async with pool.session() as session:
                await session.execute(
                    text(
                        f"INSERT INTO users (id, email, {column}) "  # noqa: S608 - from above
                        f"VALUES (gen_random_uuid(), 'a@example.org', {value})"
                    )
                )


async def test_usage_counted_at_once_adds_up(pool: ConnectionPool) -> None:
    async with pool.session() as session:
        user = await UserRepository(session).add("ann@example.org")

    async def count() -> None:
        async with pool.session() as session:
            await UserRepository(session).record_usage(user.id, files=2, size_bytes=10, searches=1)

    await asyncio.gather(*(count() for _ in range(10)))
    async with pool.session() as session:
        counted = await UserRepository(session).get(user.id)
    assert (counted.files_ingested, counted.bytes_ingested, counted.searches_made) == (20, 100, 10)
    assert counted.last_seen_at is not None
    assert counted.updated_at == user.updated_at


async def test_operators_find_users_by_part_of_the_name_by_role_and_by_inactivity(
    pool: ConnectionPool,
) -> None:
    async with pool.session() as session:
        users = UserRepository(session)
        ann = await users.add("ann@example.org", display_name="Ann 100% Drums")
        bob = await users.add("bob@sounds.example", roles=[Role.MEMBER, Role.CURATOR])
        bob.is_active = False
        await session.flush()
        assert list(await users.search("SOUNDS")) == [bob]
        assert list(await users.search("100%")) == [ann]
        assert list(await users.search("1_0")) == []
        assert list(await users.with_role(Role.CURATOR)) == [bob]
        later = datetime.now(UTC) + timedelta(minutes=1)
        assert list(await users.inactive_since(later)) == [bob]
        assert list(await users.inactive_since(later - timedelta(days=1))) == []


async def test_an_unknown_user_is_named_as_missing(pool: ConnectionPool) -> None:
    with pytest.raises(NotFoundError):
        async with pool.session() as session:
            await UserRepository(session).get(new_id())
