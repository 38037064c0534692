"""Retention in the broker's Redis: results of jobs that have no end of life.

Invariant: keys are looked at in small steps (SCAN), and only those of ours. Whose a job was cannot
be told, so nothing of it goes while a legal hold counts.
"""

import json
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis

from samplemind.connections.redis import translating_errors
from samplemind.jobs.wire import KEY_PREFIX
from samplemind.maintenance.pace import Pace
from samplemind.maintenance.retention import Group

REDIS_POLICIES = frozenset({"celery_results"})

_RESULTS = f"{KEY_PREFIX}celery-task-meta-*"
_SCAN = 500


async def redis_groups(broker: Redis, before: datetime) -> list[Group]:
    """Return what is older, one group an entry."""
    with translating_errors():
        return [
            Group(at, at, 1, size, ownerless=True) for _, at, size in await _results(broker, before)
        ]


async def redis_delete(broker: Redis, before: datetime, pace: Pace) -> tuple[int, bool]:
    """Delete what is older; return how many, and whether all."""
    with translating_errors():
        deleted = 0
        keys = [key for key, _, _ in await _results(broker, before)]
        for start in range(0, len(keys), _SCAN):
            if pace.is_over:
                return deleted, False
            with pace.chunk():
                deleted += int(await broker.unlink(*keys[start : start + _SCAN]))
            await pace.rest()
    return deleted, True


async def _results(broker: Redis, before: datetime) -> list[tuple[Any, datetime, int]]:
    found = []
    async for key in broker.scan_iter(_RESULTS, count=_SCAN):
        if await broker.ttl(key) != -1:
            continue  # it ends by itself, or has just ended
        text = await broker.get(key)
        at = _done_at(text)
        if at is not None and at < before:
            found.append((key, at, len(text or b"")))
    return found


def _done_at(text: Any) -> datetime | None:
    """Return when a result was stored; none for one that is no result of Celery's."""
    try:
        done = json.loads(text or "{}").get("date_done")
        at = datetime.fromisoformat(done) if done else None
    except (ValueError, TypeError, AttributeError):
        return None
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at
