"""The connection that all callers share: whose answer is whose, and what ends it."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from samplemind.cache.connection import connect_cache
from samplemind.cache.lane import Lane, Script
from samplemind.settings import CacheSettings, Settings
from tests.asynchronous import eventually

TIMEOUT_S = 0.3
ECHO = Script("return {KEYS[1], ARGV[1]}")


def _lane(settings: CacheSettings) -> Lane:
    pool = connect_cache(settings).connection_pool
    return Lane(
        lambda: pool.connection_class(**{**pool.connection_kwargs, "socket_timeout": None}),
        TIMEOUT_S,
    )


@pytest.fixture
async def lane(stack: Settings) -> AsyncIterator[Lane]:
    opened = _lane(stack.cache)
    yield opened
    await opened.aclose()


async def test_each_caller_gets_its_own_answer_though_others_give_up_or_are_refused(
    lane: Lane,
) -> None:
    async def echo(number: int) -> Any:
        if number % 7 == 0:
            return await lane.send("NO-SUCH-COMMAND", number)
        return await lane.send("ECHO", f"{number}" * (1 + number % 50 * 40))

    calls = [asyncio.create_task(echo(number)) for number in range(1000)]
    await asyncio.sleep(0)  # all have written, none has an answer
    for call in calls[::5]:
        call.cancel()
    found = await asyncio.gather(*calls, return_exceptions=True)
    for number, answer in enumerate(found):
        if number % 5 == 0:
            assert isinstance(answer, asyncio.CancelledError)
        elif number % 7 == 0:
            assert isinstance(answer, ResponseError)
        else:
            assert answer == f"{number}".encode() * (1 + number % 50 * 40)


async def test_more_than_redis_takes_at_once_arrives_whole(lane: Lane) -> None:
    large = b"x" * 3_000_000
    found = await asyncio.gather(*(lane.send("ECHO", large) for _ in range(4)))
    assert found == [large] * 4


async def test_a_script_that_redis_has_forgotten_is_sent_again(lane: Lane) -> None:
    for _ in range(2):
        await lane.send("SCRIPT", "FLUSH")
        assert await lane.run(ECHO, ["a"], "b") == [b"a", b"b"]
        assert await lane.run(ECHO, ["a"], "c") == [b"a", b"c"]


async def test_a_connection_that_was_killed_is_opened_anew(lane: Lane, stack: Settings) -> None:
    own = await lane.send("CLIENT", "ID")
    killer = _lane(stack.cache)
    await killer.send("CLIENT", "KILL", "ID", own)
    await killer.aclose()

    async def renewed() -> bool:
        try:
            return bool(await lane.send("CLIENT", "ID") != own)
        except RedisError:
            return False

    await eventually(renewed, seconds=5, what="another connection serves")


async def test_a_frozen_redis_fails_all_who_wait_and_no_late_answer_reaches_another(
    own_redis: Any,
) -> None:
    lane = _lane(CacheSettings(url=own_redis.url))
    assert await lane.send("ECHO", "before") == b"before"
    own_redis.signal(signal.SIGSTOP)
    try:
        found = await asyncio.gather(
            *(lane.send("ECHO", number) for number in range(10)), return_exceptions=True
        )
        assert all(isinstance(each, RedisTimeoutError) for each in found)
    finally:
        own_redis.signal(signal.SIGCONT)
    assert await lane.send("ECHO", "after") == b"after"
    await lane.aclose()
