"""The set of audio files whose index row may be out of date, kept in the broker's Redis.

An id is marked after its documents are written, claimed under a lease by one drain, and forgotten
only after its row is committed. Each claim has a token, so a drain that was paused past its lease
forgets nothing that another drain has taken since; an id marked again while it is claimed becomes
dirty again. Nothing is lost when a process dies at any line: at worst an id is indexed twice.

Times are the Redis server's own, so workers' clocks don't matter. Errors are the platform's, as
`samplemind.connections.redis` translates them: what Redis refuses is not tried again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from redis.asyncio import Redis

from samplemind.connections.redis import translating_errors
from samplemind.ids import new_id
from samplemind.jobs.wire import KEY_PREFIX

DIRTY_KEY = f"{KEY_PREFIX}index:dirty"  # sorted set: id → the time it was first marked
CLAIMED_KEY = f"{KEY_PREFIX}index:claimed"  # sorted set: "token:id" → the time its lease ends
QUEUED_KEY = f"{KEY_PREFIX}index:drain-queued"  # present while a drain is on its way

# A drain that was published and lost is published again by the next mark after this.
_QUEUED_TTL = timedelta(seconds=10)
LATE_AFTER_S = 300.0
_MARKED_AT_ONCE = 1000

_NOW = "local t = redis.call('TIME'); local now = t[1] + t[2] / 1000000 "

# KEYS: dirty, queued. ARGV: TTL in ms, ids. NX keeps the first time, so that lag is told honestly.
_MARK = (
    _NOW
    + """
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 'NX', now, ARGV[i]) end
return redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[1]) and 1 or 0
"""
)

# KEYS: dirty, claimed, queued. ARGV: token, lease in s, limit.
_CLAIM = (
    _NOW
    + """
redis.call('DEL', KEYS[3])
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)) do
  redis.call('ZREM', KEYS[2], member)
  redis.call('ZADD', KEYS[1], 'NX', now, string.match(member, ':(.*)'))
end
local popped = redis.call('ZPOPMIN', KEYS[1], ARGV[3])
local ids = {}
for i = 1, #popped, 2 do
  ids[#ids + 1] = popped[i]
  redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1] .. ':' .. popped[i])
end
return ids
"""
)

# KEYS: claimed. ARGV: lease in s, members. XX: what was given to another drain stays with that.
_EXTEND = (
    _NOW
    + """
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', now + ARGV[1], ARGV[i]) end
"""
)

# KEYS: dirty. Returns the number of ids and the age in seconds of the oldest.
_LAG = (
    _NOW
    + """
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {redis.call('ZCARD', KEYS[1]), first[2] and tostring(now - first[2]) or '0'}
"""
)


@dataclass(frozen=True, slots=True)
class DirtyClaim:
    """Ids that one drain holds until it forgets them or its lease ends."""

    token: str
    ids: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class IndexLag:
    """How far the index is behind: ids waiting, ids being written, age of the oldest in seconds."""

    waiting: int
    claimed: int
    oldest_s: float

    @property
    def is_late(self) -> bool:
        """Whether files wait longer than the index is ever meant to be behind."""
        return self.oldest_s > LATE_AFTER_S


async def mark_dirty(broker: Redis, ids: Sequence[UUID]) -> bool:
    """Mark files for indexing; return whether the caller is the one to queue a drain.

    Raises:
        StoreUnavailableError: Redis did not answer; marking again is harmless.
    """
    if not ids:
        return False
    milliseconds = int(_QUEUED_TTL / timedelta(milliseconds=1))
    is_to_queue = False
    # Redis does nothing else while it marks, and takes about a million arguments at most.
    for start in range(0, len(ids), _MARKED_AT_ONCE):
        some = (str(file_id) for file_id in ids[start : start + _MARKED_AT_ONCE])
        with translating_errors():
            queued = await broker.eval(_MARK, 2, DIRTY_KEY, QUEUED_KEY, milliseconds, *some)
        is_to_queue = is_to_queue or bool(queued)
    return is_to_queue


async def claim_dirty(broker: Redis, *, limit: int, lease: timedelta) -> DirtyClaim:
    """Take up to `limit` ids, longest dirty first; ids whose lease has ended count as dirty.

    Raises:
        StoreUnavailableError: Redis did not answer; what it may have claimed returns by its lease.
    """
    token = new_id().hex
    with translating_errors():
        members = await broker.eval(
            _CLAIM, 3, DIRTY_KEY, CLAIMED_KEY, QUEUED_KEY, token, lease.total_seconds(), limit
        )
    return DirtyClaim(token, tuple(UUID(_text(member)) for member in members))


async def forget_dirty(broker: Redis, claim: DirtyClaim) -> None:
    """Drop a claim whose rows are committed.

    Raises:
        StoreUnavailableError: Redis did not answer; the ids will be indexed once more.
    """
    if not claim.ids:
        return
    with translating_errors():
        await broker.zrem(CLAIMED_KEY, *_members(claim))


async def extend_dirty(broker: Redis, claim: DirtyClaim, *, lease: timedelta) -> None:
    """Keep a claim from now on; a lease of nothing gives it back at once.

    Raises:
        StoreUnavailableError: Redis did not answer; the lease ends as it would have.
    """
    if not claim.ids:
        return
    with translating_errors():
        await broker.eval(_EXTEND, 1, CLAIMED_KEY, lease.total_seconds(), *_members(claim))


async def index_lag(broker: Redis) -> IndexLag:
    """Return how many files wait for the index and for how long."""
    with translating_errors():
        waiting, oldest = await broker.eval(_LAG, 1, DIRTY_KEY)
        claimed = await broker.zcard(CLAIMED_KEY)
    return IndexLag(int(waiting), int(claimed), float(_text(oldest)))


def _members(claim: DirtyClaim) -> list[str]:
    return [f"{claim.token}:{file_id}" for file_id in claim.ids]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
