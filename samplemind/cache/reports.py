"""Figures of the database and lists of collections, with the cache before them.

Staleness allowed: a report of the index or of the database may be a minute old, and is shown for
four more while it is made anew, for it reads statistics that move slowly and cost a second; it is
for dashboards, and whoever has just changed something asks for a fresh one. The list of public
collections is never older than the last change of any.
"""

import dataclasses
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any

from samplemind.cache.computed import Policy
from samplemind.cache.invalidation import COLLECTIONS
from samplemind.cache.keys import key
from samplemind.cache.redis_cache import HOUR
from samplemind.connections.resources import Connections
from samplemind.maintenance.report import health_report
from samplemind.maintenance.report_pages import as_json
from samplemind.repositories.collections import AudioCollectionRepository
from samplemind.search.optimizer import SearchOptimizer

_REPORT = Policy(ttl=timedelta(minutes=1), stale=timedelta(minutes=4))
_LIST = Policy(ttl=HOUR)


async def search_report(connections: Connections) -> dict[str, Any]:
    """Return `SearchOptimizer.get_search_stats` as plain values, at most five minutes old."""

    async def compute() -> dict[str, Any]:
        return dataclasses.asdict(await SearchOptimizer(connections).get_search_stats())

    return await connections.cached.fetch(key("report", "search"), compute, _REPORT)


async def database_report(connections: Connections) -> dict[str, Any]:
    """Return `maintenance.report.health_report` as plain values, at most five minutes old."""

    async def compute() -> Any:
        return _plain(as_json(await health_report(connections.settings)))

    found: dict[str, Any] = await connections.cached.fetch(
        key("report", "database"), compute, _REPORT
    )
    return found


async def public_collections(connections: Connections, limit: int = 50) -> list[dict[str, Any]]:
    """Return `id, owner_id, name, description, file_count` of public collections, newest first."""

    async def compute() -> list[dict[str, Any]]:
        async with connections.postgres.session() as session:
            found = await AudioCollectionRepository(session).public(limit)
            names = ("id", "owner_id", "name", "description", "file_count")
            return [{name: getattr(each, name) for name in names} for each in found]

    place = key("collections", "public", limit)
    return await connections.cached.fetch(place, compute, _LIST, (COLLECTIONS,))


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return list(map(_plain, value)) if isinstance(value, list | tuple) else value
