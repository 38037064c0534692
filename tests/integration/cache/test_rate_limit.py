import asyncio
from datetime import timedelta

import pytest
from pydantic import SecretStr

from samplemind.cache.computed import ComputedCache
from samplemind.cache.rate_limit import Algorithm, Decision, Limit, RateLimitCache, WhenDown
from samplemind.cache.redis_cache import RedisCache
from samplemind.errors import InvalidInputError
from samplemind.ids import new_id
from samplemind.models.api_key import ApiKey
from samplemind.settings import Settings

HOUR = timedelta(hours=1)
ALGORITHMS = pytest.mark.parametrize("algorithm", list(Algorithm))


@pytest.fixture
def limits(cache: ComputedCache) -> RateLimitCache:
    return RateLimitCache(cache.cache)


@ALGORITHMS
async def test_of_a_thousand_callers_at_once_exactly_the_limit_is_allowed(
    limits: RateLimitCache, algorithm: Algorithm
) -> None:
    limit = Limit(100, HOUR)  # nothing comes back within the test: a call each 36 s
    calls = (limits.hit("a", limit, algorithm=algorithm) for _ in range(1000))
    found = await asyncio.gather(*calls)
    assert all(decision.known for decision in found)
    allowed = [decision for decision in found if decision.allowed]
    # The oracle of the atomic order: each allowed call sees one less than the one before.
    assert sorted(decision.remaining for decision in allowed) == list(range(100))
    refused = [decision for decision in found if not decision.allowed]
    assert all(
        decision.remaining == 0 and decision.retry_after > timedelta(0) for decision in refused
    )


@ALGORITHMS
async def test_a_cost_is_taken_whole_or_not_at_all(
    limits: RateLimitCache, algorithm: Algorithm
) -> None:
    limit = Limit(10, HOUR)
    costs = [4, 4, 4, 2, 1]
    found = [await limits.hit("a", limit, algorithm=algorithm, cost=cost) for cost in costs]
    left, expected = 10, []
    for cost in costs:
        fits = cost <= left
        left -= cost * fits
        expected.append((fits, left))
    assert [(decision.allowed, decision.remaining) for decision in found] == expected


@ALGORITHMS
async def test_the_same_call_is_allowed_after_what_it_was_told_to_wait(
    limits: RateLimitCache, algorithm: Algorithm
) -> None:
    limit = Limit(3, timedelta(milliseconds=300))
    for _ in range(3):
        assert (await limits.hit("a", limit, algorithm=algorithm)).allowed
    refused = await limits.hit("a", limit, algorithm=algorithm)
    if not refused.allowed:  # on a machine that paused, the window has passed already
        assert timedelta(0) < refused.retry_after <= limit.window
        await asyncio.sleep(refused.retry_after.total_seconds() + 0.002)
        assert (await limits.hit("a", limit, algorithm=algorithm)).allowed


async def test_callers_and_limits_count_apart(limits: RateLimitCache) -> None:
    one = Limit(1, HOUR)
    found = [
        await limits.hit("a", one),
        await limits.hit("b", one),
        await limits.hit("a", Limit(2, HOUR)),
        await limits.hit_user(new_id(), one),
        await limits.hit("a", one),
    ]
    assert [decision.allowed for decision in found] == [True, True, True, True, False]


async def test_an_api_key_has_the_limits_of_its_row(limits: RateLimitCache) -> None:
    record = ApiKey(id=new_id(), rate_limit_per_minute=5, rate_limit_per_day=3)
    found = [await limits.hit_api_key(record) for _ in range(4)]
    assert [each.allowed for each in found if each] == [True, True, True, False]
    assert found[0] is not None
    assert found[0].remaining == 2
    assert await limits.hit_api_key(ApiKey(id=new_id())) is None


async def test_a_call_that_the_day_refuses_leaves_the_minute_alone(limits: RateLimitCache) -> None:
    key_id = new_id()
    today = ApiKey(id=key_id, rate_limit_per_minute=5, rate_limit_per_day=2)
    for _ in range(6):
        await limits.hit_api_key(today)
    # Of the minute two calls are used: those that the day allowed.
    minute = await limits.hit_api_key(ApiKey(id=key_id, rate_limit_per_minute=5))
    assert minute is not None
    assert (minute.allowed, minute.remaining) == (True, 2)


@pytest.mark.parametrize(("choice", "allowed"), [(WhenDown.ALLOW, True), (WhenDown.REFUSE, False)])
async def test_without_redis_the_caller_chooses(
    stack: Settings, choice: WhenDown, allowed: bool, unused_url: SecretStr
) -> None:
    settings = stack.cache.model_copy(update={"url": unused_url})
    cache = RedisCache(settings)
    decision = await RateLimitCache(cache).hit("a", Limit(1, HOUR), when_down=choice)
    assert isinstance(decision, Decision)
    assert (decision.allowed, decision.known) == (allowed, False)
    await cache.aclose()


@pytest.mark.parametrize("cost", [0, -1, 2])
async def test_a_cost_beyond_the_limit_is_refused(limits: RateLimitCache, cost: int) -> None:
    with pytest.raises(InvalidInputError):
        await limits.hit("a", Limit(1, HOUR), cost=cost)
