import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from samplemind.connections.resources import Connections
from samplemind.errors import PermanentError
from samplemind.search import dirty
from samplemind.search.dirty import (
    CLAIMED_KEY,
    DIRTY_KEY,
    DirtyClaim,
    claim_dirty,
    extend_dirty,
    forget_dirty,
    index_lag,
    mark_dirty,
)

LEASE = timedelta(seconds=60)
NO_LEASE = timedelta(0)


def fresh_ids(count: int) -> list[UUID]:
    return [uuid4() for _ in range(count)]


async def test_only_the_first_mark_queues_a_drain(connections: Connections) -> None:
    assert await mark_dirty(connections.broker, fresh_ids(2))
    assert not await mark_dirty(connections.broker, fresh_ids(2))

    await claim_dirty(connections.broker, limit=10, lease=LEASE)
    assert await mark_dirty(connections.broker, fresh_ids(1))


async def test_many_ids_are_marked_in_parts_and_queue_one_drain(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dirty, "_MARKED_AT_ONCE", 10)
    ids = fresh_ids(25)
    assert await mark_dirty(connections.broker, ids)
    assert not await mark_dirty(connections.broker, ids)

    claim = await claim_dirty(connections.broker, limit=100, lease=LEASE)

    assert sorted(claim.ids) == sorted(ids)


async def test_an_id_marked_many_times_is_claimed_once(connections: Connections) -> None:
    ids = fresh_ids(3)
    await mark_dirty(connections.broker, ids * 3)

    claim = await claim_dirty(connections.broker, limit=10, lease=LEASE)

    assert sorted(claim.ids) == sorted(ids)
    assert not (await claim_dirty(connections.broker, limit=10, lease=LEASE)).ids


async def test_a_claim_that_is_never_forgotten_comes_back(connections: Connections) -> None:
    ids = fresh_ids(2)
    await mark_dirty(connections.broker, ids)
    await claim_dirty(connections.broker, limit=10, lease=NO_LEASE)

    again = await claim_dirty(connections.broker, limit=10, lease=LEASE)

    assert sorted(again.ids) == sorted(ids)


async def test_a_paused_drain_cannot_forget_what_another_has_taken(
    connections: Connections,
) -> None:
    ids = fresh_ids(1)
    await mark_dirty(connections.broker, ids)
    paused = await claim_dirty(connections.broker, limit=10, lease=NO_LEASE)
    other = await claim_dirty(connections.broker, limit=10, lease=NO_LEASE)
    assert other.ids == paused.ids

    await forget_dirty(connections.broker, paused)

    assert (await claim_dirty(connections.broker, limit=10, lease=LEASE)).ids == paused.ids


async def test_a_claim_is_kept_as_long_as_it_is_extended_and_given_back_at_will(
    connections: Connections,
) -> None:
    ids = fresh_ids(2)
    await mark_dirty(connections.broker, ids)
    kept = await claim_dirty(connections.broker, limit=10, lease=NO_LEASE)
    await extend_dirty(connections.broker, kept, lease=LEASE)
    assert not (await claim_dirty(connections.broker, limit=10, lease=LEASE)).ids

    await extend_dirty(connections.broker, kept, lease=NO_LEASE)
    other = await claim_dirty(connections.broker, limit=10, lease=LEASE)
    assert sorted(other.ids) == sorted(ids)

    await extend_dirty(connections.broker, kept, lease=NO_LEASE)  # it has nothing any more
    assert not (await claim_dirty(connections.broker, limit=10, lease=LEASE)).ids


async def test_a_file_that_changes_while_it_is_indexed_is_indexed_again(
    connections: Connections,
) -> None:
    ids = fresh_ids(1)
    await mark_dirty(connections.broker, ids)
    claim = await claim_dirty(connections.broker, limit=10, lease=LEASE)
    await mark_dirty(connections.broker, ids)
    await forget_dirty(connections.broker, claim)

    assert list((await claim_dirty(connections.broker, limit=10, lease=LEASE)).ids) == ids


async def test_a_claim_takes_no_more_than_its_limit_and_the_longest_dirty_first(
    connections: Connections,
) -> None:
    first, second = fresh_ids(2), fresh_ids(2)
    await mark_dirty(connections.broker, first)
    await mark_dirty(connections.broker, second)

    claim = await claim_dirty(connections.broker, limit=2, lease=LEASE)

    assert sorted(claim.ids) == sorted(first)
    lag = await index_lag(connections.broker)
    assert (lag.waiting, lag.claimed) == (2, 2)
    assert lag.oldest_s >= 0


async def test_a_command_that_redis_refuses_is_not_tried_again(connections: Connections) -> None:
    broker = connections.broker
    for key in (DIRTY_KEY, CLAIMED_KEY):
        await broker.set(key, "not a sorted set")

    commands = (
        mark_dirty(broker, fresh_ids(1)),
        claim_dirty(broker, limit=1, lease=LEASE),
        forget_dirty(broker, DirtyClaim("token", tuple(fresh_ids(1)))),
        index_lag(broker),
    )

    for refused in await asyncio.gather(*commands, return_exceptions=True):
        assert isinstance(refused, PermanentError)
