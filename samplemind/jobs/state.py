"""What the broker knows of a job: where it stands, who runs it, how far it is, how it ended.

One hash a job, `sm:job:ID`, which lives a week while the job is under way and a day after it
ended. It is changed by the scripts of this module alone, each of which decides and acts in one
step on the server, so that no interleaving of producers, workers and operators can part them.

Invariant: an ended state is final until a producer sends the job anew. A worker writes the end of
a job before its message leaves the broker, so a job is never under way without a message that will
end it; a unique key only names a job, whose state decides, so no key outlives its reason.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from samplemind.jobs.wire import KEY_PREFIX

JOB_PREFIX = f"{KEY_PREFIX}job:"
UNIQUE_PREFIX = f"{KEY_PREFIX}unique:"
JOBS = f"{KEY_PREFIX}jobs"
"""Sorted set of job ids by the time they were first seen, for lists."""
DELAYED = f"{KEY_PREFIX}delayed"
"""Sorted set of the ids of jobs that wait for their time, by that time."""
DELAYED_MESSAGES = f"{KEY_PREFIX}delayed_messages"
"""Their messages, each after the list it goes to and a line break."""

ACTIVE_LIFE_S = 7 * 24 * 3600
ENDED_LIFE_S = 24 * 3600
LISTED_JOBS = 100_000
"""Jobs that lists go back."""
LISTED_OF_AREA = 1_000
"""Jobs that the list of one area goes back."""


class JobArea(StrEnum):
    """An area whose few jobs are listed by themselves, however many others there are.

    Each value is what stands before the dot in the names of its jobs.
    """

    BACKUPS = "backups"
    MAINTENANCE = "maintenance"


def area_key(area: JobArea) -> str:
    """Return the key of an area's list: a sorted set like `JOBS`."""
    return f"{JOBS}:{area.value}"


class JobState(StrEnum):
    """Where a job stands."""

    WAITING = "waiting"
    RUNNING = "running"
    RETRYING = "retrying"  # failed for now, and waits for its next attempt
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # its answer was an error; it is a dead letter, too
    CANCELLED = "cancelled"
    DEAD = "dead"  # it never came to an answer; it is a dead letter

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self not in _ACTIVE


_ACTIVE = frozenset((JobState.WAITING, JobState.RUNNING, JobState.RETRYING))


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job as the broker knows it; times are UTC-aware."""

    id: str
    task: str
    state: JobState
    attempts: int
    enqueued_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    worker: str | None
    progress: dict[str, Any] | None
    result: Any
    error: str | None
    cancel_requested: bool

    def as_json(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {name: getattr(self, name) for name in self.__slots__}


def job_key(job_id: str) -> str:
    """Return the key of a job's hash."""
    return f"{JOB_PREFIX}{job_id}"


def unique_key(task: str, idempotency_key: str) -> str:
    """Return the key that names the job with this idempotency key; each task has its own."""
    return f"{UNIQUE_PREFIX}{task}:{idempotency_key}"


def read_status(job_id: str, fields: Mapping[bytes, bytes]) -> JobStatus | None:
    """Read a job's hash; none where it is empty."""
    values = {name.decode(): value.decode() for name, value in fields.items()}
    if "state" not in values:
        return None
    return JobStatus(
        id=job_id,
        task=values.get("task", ""),
        state=JobState(values["state"]),
        attempts=int(values.get("attempts", 0)),
        enqueued_at=_time(values.get("enqueued")),
        started_at=_time(values.get("started")),
        ended_at=_time(values.get("ended")),
        worker=values.get("worker"),
        progress=_json(values.get("progress")),
        result=_json(values.get("result")),
        error=values.get("error"),
        cancel_requested="cancel" in values,
    )


def encode_result(value: object) -> str:
    """Return a job's result as its hash keeps it: JSON, or nothing where it has none."""
    return "" if value is None else json.dumps(value, default=str)


def _time(milliseconds: str | None) -> datetime | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


# Each script takes the server's clock, so that workers whose clocks differ agree.
_NOW = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function active(state)
  return state == 'waiting' or state == 'running' or state == 'retrying'
end
"""

# Of other areas, whose jobs come by the thousand, no list is written: it would cost each of them.
_LIST = f"""
local areas = {{ {", ".join(f"{area.value} = true" for area in JobArea)} }}
local function list_in_area(task, id)
  local area = string.match(task, '^(%a+)%.')
  if area and areas[area] then redis.call('ZADD', '{JOBS}:' .. area, 'NX', now, id) end
end
"""

ENQUEUE = f"""{_NOW}{_LIST}
-- ARGV: for each job: id, task, list, message, delay ms, unique key, unique ms.
-- Returns the id of each job: its own, or that of the job which holds its unique key. A job whose
-- id is known is not sent again, so that a call whose answer was lost can be repeated.
local ids = {{}}
for i = 1, #ARGV, 7 do
  local id, key = ARGV[i], '{JOB_PREFIX}' .. ARGV[i]
  local task, list, message = ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local delay, unique, holds = tonumber(ARGV[i + 4]), ARGV[i + 5], ARGV[i + 6]
  local holder = nil
  if unique ~= '' then
    local named = redis.call('GET', unique)
    if named then
      local seen = redis.call('HMGET', '{JOB_PREFIX}' .. named, 'state', 'ended', 'holds')
      local held = seen[1] == 'succeeded' and now < tonumber(seen[2]) + tonumber(seen[3] or 0)
      if active(seen[1]) or held then holder = named end
    end
  end
  if not holder then
    if redis.call('EXISTS', key) == 0 then
      redis.call('HSET', key, 'task', task, 'state', 'waiting', 'enqueued', now, 'sent', 1)
      redis.call('EXPIRE', key, {ACTIVE_LIFE_S} + math.ceil(delay / 1000))
      redis.call('ZADD', '{JOBS}', now, id)
      list_in_area(task, id)
      if unique ~= '' then
        redis.call('HSET', key, 'holds', holds)
        redis.call('SET', unique, id, 'PX', {ACTIVE_LIFE_S}000 + holds + delay)
      end
      if delay > 0 then
        redis.call('ZADD', '{DELAYED}', now + delay, id)
        redis.call('HSET', '{DELAYED_MESSAGES}', id, list .. '\\n' .. message)
      else
        redis.call('LPUSH', list, message)
      end
    end
    holder = id
  end
  ids[#ids + 1] = holder
end
return ids
"""

RELEASE = f"""{_NOW}
-- ARGV: how many at most. Moves jobs whose time has come into their queues; returns how many.
local due = redis.call('ZRANGEBYSCORE', '{DELAYED}', '-inf', now, 'LIMIT', 0, ARGV[1])
for _, id in ipairs(due) do
  local held = redis.call('HGET', '{DELAYED_MESSAGES}', id)
  if held then
    local cut = string.find(held, '\\n', 1, true)
    redis.call('LPUSH', string.sub(held, 1, cut - 1), string.sub(held, cut + 1))
    redis.call('HDEL', '{DELAYED_MESSAGES}', id)
  end
  redis.call('ZREM', '{DELAYED}', id)
end
return #due
"""

BEGIN = f"""{_NOW}{_LIST}
-- ARGV: id, task, worker, redelivered, delivery. Returns 'run', or the state that forbids it.
local key = '{JOB_PREFIX}' .. ARGV[1]
local seen = redis.call('HMGET', key, 'state', 'sent', 'cancel')
local state = seen[1]
if state == 'cancelled' then return state end
if state and not active(state) and (seen[2] or ARGV[4] == '1') then return state end
if state and not active(state) then redis.call('DEL', key) state = false end
if state and seen[3] then
  redis.call('HSET', key, 'state', 'cancelled', 'ended', now)
  redis.call('EXPIRE', key, {ENDED_LIFE_S})
  return 'cancelled'
end
if not state then
  redis.call('HSET', key, 'enqueued', now)
  redis.call('ZADD', '{JOBS}', 'NX', now, ARGV[1])
end
list_in_area(ARGV[2], ARGV[1])
redis.call('HSET', key, 'task', ARGV[2], 'state', 'running', 'started', now, 'worker', ARGV[3])
redis.call('HINCRBY', key, 'attempts', 1)
redis.call('EXPIRE', key, {ACTIVE_LIFE_S})
return 'run'
"""

END = f"""{_NOW}
-- ARGV: id, task, state, error, result, stream, then the fields of a dead letter, if it leaves one.
-- Ends a job, or sends it to its next attempt. What was cancelled by force stays cancelled.
local key = '{JOB_PREFIX}' .. ARGV[1]
if redis.call('HGET', key, 'state') == 'cancelled' then return 0 end
local life = {ENDED_LIFE_S}
redis.call('HSET', key, 'task', ARGV[2], 'state', ARGV[3])
if ARGV[3] == 'retrying' then
  life = {ACTIVE_LIFE_S}
else
  redis.call('HSET', key, 'ended', now)
end
if ARGV[4] ~= '' then redis.call('HSET', key, 'error', ARGV[4]) end
if ARGV[5] ~= '' then redis.call('HSET', key, 'result', ARGV[5]) end
redis.call('EXPIRE', key, life)
if #ARGV > 6 then redis.call('XADD', ARGV[6], '*', unpack(ARGV, 7)) end
return 1
"""

CANCEL = f"""{_NOW}
-- ARGV: id. Returns 'cancelled', 'requested' of a running job, or the state in which it ended.
local key = '{JOB_PREFIX}' .. ARGV[1]
local state = redis.call('HGET', key, 'state')
if state == 'running' then
  redis.call('HSET', key, 'cancel', now)
  return 'requested'
end
if state and not active(state) then return state end
redis.call('HSET', key, 'state', 'cancelled', 'ended', now)
redis.call('EXPIRE', key, {ACTIVE_LIFE_S})
redis.call('ZADD', '{JOBS}', 'NX', now, ARGV[1])
redis.call('ZREM', '{DELAYED}', ARGV[1])
redis.call('HDEL', '{DELAYED_MESSAGES}', ARGV[1])
return 'cancelled'
"""

PROGRESS = f"""
-- ARGV: id, progress. Keeps how far a job is, if its state is kept at all.
if redis.call('HGET', '{JOB_PREFIX}' .. ARGV[1], 'state') == 'running' then
  redis.call('HSET', '{JOB_PREFIX}' .. ARGV[1], 'progress', ARGV[2])
end
"""
