"""Limits per key, held by all workers together: how many run at once, how many begin in a minute.

A key names whoever is limited (`owner_key`). Who wants to begin asks `enter`; what is refused is
told when to ask again and has changed nothing, so that it can wait where it costs nobody anything.

Invariant: never more than `running` holders are inside and never more than `per_minute` entered
within any minute, by the clock of the Redis server, whatever workers do or die of: each place is
a lease, which its holder extends and which ends by itself. A holder that enters again (its message
was delivered again) takes its own place over and counts once.
"""

from dataclasses import dataclass
from uuid import UUID

from redis.asyncio import Redis

from samplemind.connections.redis import translating_errors
from samplemind.jobs.wire import KEY_PREFIX
from samplemind.limit import Limit

_NOW = "local t = redis.call('TIME'); local now = t[1] + t[2] / 1000000 "

# KEYS: running, begun. ARGV: holder, token, lease in s, most running, most begun in a minute; 0:
# any number. Returns whether it entered, and else how many seconds to wait at the least.
_ENTER = (
    _NOW
    + """
local holder, token, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local most, rate = tonumber(ARGV[4]), tonumber(ARGV[5])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local again = false
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if string.sub(member, 1, #holder + 1) == holder .. ' ' then
    redis.call('ZREM', KEYS[1], member)
    again = true
  end
end
if not again then
  if most > 0 and redis.call('ZCARD', KEYS[1]) >= most then
    local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
    return {0, tostring(first[2] - now)}
  end
  if rate > 0 then
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 60)
    if redis.call('ZCARD', KEYS[2]) >= rate then
      local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
      return {0, tostring(first[2] + 60 - now)}
    end
    redis.call('ZADD', KEYS[2], now, token)
    redis.call('EXPIRE', KEYS[2], 61)
  end
end
redis.call('ZADD', KEYS[1], now + lease, holder .. ' ' .. token)
redis.call('EXPIRE', KEYS[1], math.ceil(lease) + 1)
return {1, '0'}
"""
)

# KEYS: running. ARGV: member, lease in s. A place that has ended is not brought back.
_EXTEND = (
    _NOW
    + """
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not ends or tonumber(ends) <= now then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('EXPIRE', KEYS[1], math.ceil(ARGV[2]) + 1)
return 1
"""
)

# KEYS: running, begun. ARGV: most running, most begun in a minute. Returns how many could enter.
_ROOM = (
    _NOW
    + """
local room = 1000000
local most, rate = tonumber(ARGV[1]), tonumber(ARGV[2])
if most > 0 then
  room = math.min(room, most - redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf'))
end
if rate > 0 then
  room = math.min(room, rate - redis.call('ZCOUNT', KEYS[2], '(' .. (now - 60), '+inf'))
end
return math.max(room, 0)
"""
)


@dataclass(frozen=True, slots=True)
class Place:
    """The right of one run of one job to be inside.

    Attributes:
        holder: the job's id, the same at each delivery.
        token: of this run.
    """

    key: str
    holder: str
    token: str


def owner_key(owner_id: UUID | None) -> str:
    """Return the key of an owner's jobs; None: those of the library's own files."""
    return f"owner:{owner_id or 'library'}"


async def enter(broker: Redis, place: Place, limit: Limit, *, lease_s: float) -> float | None:
    """Take a place; None: it is taken, else seconds after which to ask again at the soonest.

    Raises:
        StoreUnavailableError: Redis did not answer; asking again with the same place is harmless.
    """
    arguments = (place.holder, place.token, lease_s, limit.running, limit.per_minute)
    with translating_errors():
        entered, wait_s = await broker.eval(
            _ENTER, 2, _running(place.key), _begun(place.key), *arguments
        )
    return None if int(entered) else max(0.0, float(wait_s))


async def extend(broker: Redis, place: Place, *, lease_s: float) -> bool:
    """Keep a place from now on; False if it had ended.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """
    with translating_errors():
        kept = await broker.eval(_EXTEND, 1, _running(place.key), _member(place), lease_s)
    return bool(kept)


async def leave(broker: Redis, place: Place) -> None:
    """Give a place up; what another run of the same job took over stays.

    Raises:
        StoreUnavailableError: Redis did not answer; the place ends by its lease.
    """
    with translating_errors():
        await broker.zrem(_running(place.key), _member(place))


async def room(broker: Redis, key: str, limit: Limit) -> int | None:
    """Return how many could enter now; None: any number.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """
    if limit.is_none:
        return None
    with translating_errors():
        found = await broker.eval(
            _ROOM, 2, _running(key), _begun(key), limit.running, limit.per_minute
        )
    return int(found)


def _running(key: str) -> str:
    return f"{KEY_PREFIX}limit:running:{key}"


def _begun(key: str) -> str:
    return f"{KEY_PREFIX}limit:begun:{key}"


def _member(place: Place) -> str:
    return f"{place.holder} {place.token}"
