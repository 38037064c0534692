import asyncio
import random
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.postgres import ConnectionPool
from samplemind.errors import ConflictError, InvalidInputError, NotFoundError
from samplemind.ids import new_id
from samplemind.models.user import User
from samplemind.repositories.collections import AudioCollectionRepository
from samplemind.repositories.users import UserRepository

Work = Callable[[AsyncSession], Awaitable[int]]

_COUNTS = text(
    """
    SELECT c.id, c.file_count, count(i.id) FROM audio_collections AS c
    LEFT JOIN audio_collection_items AS i ON i.collection_id = c.id GROUP BY c.id ORDER BY c.id
    """
)


@pytest.fixture
async def collection_ids(pool: ConnectionPool, owner: User) -> list[UUID]:
    async with pool.session() as session:
        collections = AudioCollectionRepository(session)
        return [(await collections.add(owner.id, name)).id for name in ("Kicks", "Snares", "Hats")]


async def _counts(pool: ConnectionPool) -> dict[UUID, int]:
    """Return each collection's count, which must be the number of its items."""
    async with pool.session() as session:
        rows = (await session.execute(_COUNTS)).all()
    assert [stated for _, stated, _ in rows] == [counted for _, _, counted in rows]
    return {collection_id: counted for collection_id, _, counted in rows}


async def test_the_count_follows_what_is_added_removed_and_rolled_back(
    pool: ConnectionPool, collection_ids: list[UUID]
) -> None:
    kicks, snares, _ = collection_ids
    files = [new_id() for _ in range(10)]
    async with pool.session() as session:
        collections = AudioCollectionRepository(session)
        assert await collections.add_files(kicks, files) == 10
        assert await collections.add_files(kicks, [*files[:3], new_id(), files[0]]) == 1
        assert await collections.add_files(snares, files[:2]) == 2
        assert await collections.remove_files(kicks, [*files[:4], new_id()]) == 4
        assert (await collections.get(kicks)).file_count == 7
    assert list((await _counts(pool)).values()) == [7, 2, 0]

    async def add_and_fail() -> None:
        async with pool.session() as session:
            await AudioCollectionRepository(session).add_files(kicks, [new_id()])
            raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"):
        await add_and_fail()
    assert (await _counts(pool))[kicks] == 7


async def test_the_count_follows_items_that_move_and_files_that_are_deleted(
    pool: ConnectionPool, collection_ids: list[UUID]
) -> None:
    kicks, snares, hats = collection_ids
    files = [new_id() for _ in range(6)]
    async with pool.session() as session:
        collections = AudioCollectionRepository(session)
        for collection_id in (kicks, snares):
            await collections.add_files(collection_id, files)
        await session.execute(
            text("UPDATE audio_collection_items SET collection_id = :to WHERE collection_id = :of"),
            {"of": kicks, "to": hats},
        )
        await session.execute(text("UPDATE audio_collection_items SET position = position + 1"))
    assert await _counts(pool) == {kicks: 0, snares: 6, hats: 6}
    async with pool.session() as session:
        assert await AudioCollectionRepository(session).forget_files(files[:2]) == 4
    assert await _counts(pool) == {kicks: 0, snares: 4, hats: 4}
    async with pool.session() as session:
        await session.execute(text("TRUNCATE audio_collection_items"))
    assert await _counts(pool) == {kicks: 0, snares: 0, hats: 0}


async def test_many_change_the_same_collections_at_once_and_none_fails_or_is_miscounted(
    pool: ConnectionPool, collection_ids: list[UUID]
) -> None:
    files = [new_id() for _ in range(40)]

    async def change(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(12):
            chosen = chance.sample(files, 5)
            if chance.random() < 0.5:
                collection_id = chance.choice(collection_ids)
                await pool.run(_adding(collection_id, chosen))
            elif chance.random() < 0.5:
                await pool.run(_removing(chance.choice(collection_ids), chosen))
            else:  # one statement over all three collections
                await pool.run(_forgetting(chosen[:2]))

    await asyncio.gather(*(change(seed) for seed in range(10)))
    counts = await _counts(pool)
    assert sum(counts.values()) > 0


def _adding(collection_id: UUID, files: list[UUID]) -> Work:
    async def work(session: AsyncSession) -> int:
        return await AudioCollectionRepository(session).add_files(collection_id, files)

    return work


def _removing(collection_id: UUID, files: list[UUID]) -> Work:
    async def work(session: AsyncSession) -> int:
        return await AudioCollectionRepository(session).remove_files(collection_id, files)

    return work


def _forgetting(files: list[UUID]) -> Work:
    async def work(session: AsyncSession) -> int:
        return await AudioCollectionRepository(session).forget_files(files)

    return work


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audio_collections SET file_count = 99",
        (
            "INSERT INTO audio_collections (id, owner_id, name, file_count) "
            "SELECT gen_random_uuid(), owner_id, 'x', 5 FROM audio_collections LIMIT 1"
        ),
    ],
)
async def test_nobody_can_state_a_count(
    pool: ConnectionPool, collection_ids: list[UUID], statement: str
) -> None:
    with pytest.raises(InvalidInputError, match="file_count"):
        async with pool.session() as session:
            await session.execute(text(statement))
    assert await _counts(pool) == dict.fromkeys(collection_ids, 0)


async def test_deleting_a_collection_or_its_owner_deletes_the_items(
    pool: ConnectionPool, owner: User, collection_ids: list[UUID]
) -> None:
    kicks, snares, _ = collection_ids
    async with pool.session() as session:
        collections = AudioCollectionRepository(session)
        helper = await UserRepository(session).add("helper@example.org")
        for collection_id in (kicks, snares):
            await collections.add_files(collection_id, [new_id()], added_by=helper.id)
        assert await collections.delete(kicks)
        assert not await collections.delete(kicks)
    async with pool.session() as session:
        await session.execute(text("DELETE FROM users WHERE id = :id"), {"id": helper.id})
        (item,) = await AudioCollectionRepository(session).items(snares)
        assert item.added_by is None
    async with pool.session() as session:
        await session.execute(text("DELETE FROM users WHERE id = :id"), {"id": owner.id})
        with pytest.raises(NotFoundError):
            await AudioCollectionRepository(session).get(snares)
        left = await session.scalar(text("SELECT count(*) FROM audio_collection_items"))
    assert left == 0


async def test_files_come_in_order_page_by_page(
    pool: ConnectionPool, collection_ids: list[UUID]
) -> None:
    files = [new_id() for _ in range(7)]
    random.Random(1).shuffle(files)
    async with pool.session() as session:
        collections = AudioCollectionRepository(session)
        await collections.add_files(collection_ids[0], files[:4])
        await collections.add_files(collection_ids[0], files[4:])
        seen: list[UUID] = []
        page = await collections.items(collection_ids[0], limit=3)
        while page:
            seen += [item.audio_file_id for item in page]
            page = await collections.items(collection_ids[0], after=page[-1], limit=3)
    assert seen == files


async def test_a_name_is_an_owners_once_and_finds_the_collection(
    pool: ConnectionPool, owner: User, collection_ids: list[UUID]
) -> None:
    async with pool.session() as session:
        collections = AudioCollectionRepository(session)
        found = await collections.get_by_name(owner.id, "KICKS")
        assert found is not None
        assert found.id == collection_ids[0]
    with pytest.raises(ConflictError):
        async with pool.session() as session:
            await AudioCollectionRepository(session).add(owner.id, "kicks")


async def test_private_collections_are_found_by_their_owner_only(
    pool: ConnectionPool, owner: User, collection_ids: list[UUID]
) -> None:
    async with pool.session() as session:
        collections = AudioCollectionRepository(session)
        kicks = await collections.get(collection_ids[0])
        assert list(await collections.public()) == []
        assert list(await collections.search("ick")) == []
        assert list(await collections.search("ICK", owner_id=owner.id)) == [kicks]
        assert list(await collections.search("ick", owner_id=new_id())) == []
        kicks.is_public = True
        await session.flush()
        assert list(await collections.public()) == [kicks]
        assert list(await collections.search("ick")) == [kicks]
        assert len(await collections.of_owner(owner.id)) == 3
        file_id = new_id()
        await collections.add_files(kicks.id, [file_id])
        assert list(await collections.containing(file_id)) == [kicks]
