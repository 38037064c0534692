"""Rate limits, each decided in one atomic script by the clock of Redis.

Token bucket: a burst of up to `limit`, refilled evenly over the window. Sliding window: never more
than `limit` in any span of the window, which costs memory for each call that was allowed.

Invariant: of any number of callers at once exactly as many are allowed as the limit has room for;
a refused call takes nothing. The clocks of callers play no part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from samplemind.cache import counts
from samplemind.cache.lane import Script
from samplemind.cache.redis_cache import RedisCache
from samplemind.errors import InvalidInputError
from samplemind.models.api_key import ApiKey

# Microseconds as whole numbers: a bucket is the time at which it would be full (GCRA), so nothing
# is lost to rounding, however often it is asked. A call is allowed by all of several buckets, and
# taken from all of them or none. KEYS: the buckets. ARGV: cost, then limit and window of each.
_BUCKETS = Script("""
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local cost, allowed = tonumber(ARGV[1]), true
local each, window, full_at = {}, {}, {}
for i = 1, #KEYS do
    window[i] = tonumber(ARGV[2 * i + 1])
    each[i] = window[i] / tonumber(ARGV[2 * i])
    full_at[i] = math.max(now, tonumber(redis.call('GET', KEYS[i]) or '0') or 0)
    if full_at[i] + cost * each[i] - now > window[i] then allowed = false end
end
local answer = {allowed and 1 or 0}
for i = 1, #KEYS do
    local wanted = full_at[i] + cost * each[i]
    local retry = math.max(0, math.ceil(wanted - now - window[i]))
    if allowed then
        full_at[i], retry = wanted, 0
        redis.call('SET', KEYS[i], string.format('%.0f', wanted), 'PX',
            math.max(1, math.ceil((wanted - now) / 1000)))
    end
    answer[#answer + 1] = math.floor((window[i] - (full_at[i] - now)) / each[i] + 1e-6)
    answer[#answer + 1] = retry
    answer[#answer + 1] = math.ceil(full_at[i] - now)
end
return answer
""")

# The window's calls lie in a sorted set by time; a counter makes members of one microsecond differ.
_SLIDING_WINDOW = Script("""
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local cost, limit, window = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - window))
local used = redis.call('ZCARD', KEYS[1])
local allowed = used + cost <= limit
if allowed then
    for i = 1, cost do
        redis.call('ZADD', KEYS[1], string.format('%.0f', now),
            string.format('%.0f', now) .. ':' .. (used + i))
    end
    used = used + cost
    redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000))
end
local retry, reset = 0, 0
if used > 0 then
    local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
    reset = last[2] + window - now
end
if not allowed then
    local index = used + cost - limit - 1
    local first = redis.call('ZRANGE', KEYS[1], index, index, 'WITHSCORES')
    retry = first[2] + window - now
end
return {allowed and 1 or 0, limit - used, math.ceil(retry), math.ceil(reset)}
""")

_MINUTE = timedelta(minutes=1)
_DAY = timedelta(days=1)


class Algorithm(StrEnum):
    """How a limit counts."""

    TOKEN_BUCKET = "token_bucket"  # noqa: S105 - the algorithm's name
    SLIDING_WINDOW = "sliding_window"


_SCRIPTS = {Algorithm.TOKEN_BUCKET: _BUCKETS, Algorithm.SLIDING_WINDOW: _SLIDING_WINDOW}


class WhenDown(StrEnum):
    """What to decide while Redis does not answer."""

    ALLOW = "allow"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Limit:
    """So many calls in a window."""

    calls: int
    window: timedelta

    def __post_init__(self) -> None:
        """Refuse a limit that nobody means.

        Raises:
            InvalidInputError: the calls or the window are not positive, or too large.
        """
        if not 1 <= self.calls <= 1_000_000_000:
            message = f"a limit allows from 1 to a thousand million calls, not {self.calls}"
            raise InvalidInputError(message)
        if not timedelta(milliseconds=1) <= self.window <= timedelta(days=366):
            message = f"a limit's window is from a millisecond to a year, not {self.window}"
            raise InvalidInputError(message)


@dataclass(frozen=True, slots=True)
class Decision:
    """What came of one call.

    Attributes:
        remaining: calls that would be allowed right after this one.
        retry_after: how long until the same call would be allowed; zero where it was.
        reset: how long until the limit is untouched again.
        known: false where Redis did not answer, so `allowed` is the caller's own choice.
    """

    allowed: bool
    remaining: int
    retry_after: timedelta
    reset: timedelta
    known: bool = True


class RateLimitCache:
    """Decides calls; one object may serve any number of callers."""

    def __init__(self, cache: RedisCache) -> None:
        self._cache = cache

    async def hit(
        self,
        who: str,
        limit: Limit,
        *,
        algorithm: Algorithm = Algorithm.TOKEN_BUCKET,
        when_down: WhenDown = WhenDown.ALLOW,
        cost: int = 1,
    ) -> Decision:
        """Count a call, unless it is refused.

        Args:
            who: whose limit it is, such as `user.<id>.search`.
            limit: how much is allowed.
            algorithm: how it counts; two algorithms count apart.
            when_down: what to decide while Redis does not answer.
            cost: how many calls this one is worth.

        Raises:
            InvalidInputError: the cost is not within 1 and the limit.
        """
        if not 1 <= cost <= limit.calls:
            message = f"a call costs from 1 to the limit of {limit.calls}, not {cost}"
            raise InvalidInputError(message)
        (decision,) = await self._decide(who, (limit,), algorithm, when_down, cost)
        return decision

    async def _decide(
        self,
        who: str,
        limits: Sequence[Limit],
        algorithm: Algorithm,
        when_down: WhenDown,
        cost: int,
    ) -> list[Decision]:
        """Ask one script about all limits; each decision tells of its own, all allow or none."""
        places: list[str] = []
        values: list[int] = [cost]
        for limit in limits:
            window_us = limit.window // timedelta(microseconds=1)
            # Another limit for the same caller is another count.
            places.append(self._cache.keys.of("rate", algorithm, who, f"{limit.calls}-{window_us}"))
            values += [limit.calls, window_us]
        answer: list[Any] | None = await self._cache.run(
            _SCRIPTS[algorithm], places, *values, again=False
        )
        if answer is None:
            return [_unknown(when_down)] * len(limits)
        allowed, figures = bool(answer[0]), [max(0, int(figure)) for figure in answer[1:]]
        if not allowed:
            self._cache.counts.add(counts.RATE_LIMITED)
        return [
            Decision(
                allowed, remaining, timedelta(microseconds=retry), timedelta(microseconds=reset)
            )
            for remaining, retry, reset in zip(
                figures[::3], figures[1::3], figures[2::3], strict=True
            )
        ]

    async def hit_user(
        self, user_id: UUID, limit: Limit, *, when_down: WhenDown = WhenDown.ALLOW
    ) -> Decision:
        """Count a call of the user."""
        return await self.hit(f"user.{user_id}", limit, when_down=when_down)

    async def hit_api_key(
        self, record: ApiKey, *, when_down: WhenDown = WhenDown.ALLOW
    ) -> Decision | None:
        """Count a call with the key against its row's limits; none where it has none.

        A call that one of the limits refuses is taken from neither.
        """
        rows = ((record.rate_limit_per_minute, _MINUTE), (record.rate_limit_per_day, _DAY))
        limits = [Limit(calls, window) for calls, window in rows if calls is not None]
        if not limits:
            return None
        who = f"key.{record.id}"
        found = await self._decide(who, limits, Algorithm.TOKEN_BUCKET, when_down, 1)
        # What the caller must mind: how long to wait, or which limit is nearest.
        return max(found, key=lambda each: (each.retry_after, -each.remaining))


def _unknown(when_down: WhenDown) -> Decision:
    """Return the decision where Redis did not answer."""
    allowed = when_down is WhenDown.ALLOW
    wait = timedelta(0) if allowed else timedelta(seconds=1)
    return Decision(allowed, 0, wait, timedelta(0), known=False)
