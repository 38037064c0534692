"""How far batches and the search index are."""

import time
from uuid import UUID

from pymongo import AsyncMongoClient

from samplemind.batches.standing import batches_standing
from samplemind.connections.mongo import Fields, connect_mongo
from samplemind.connections.resources import Connections
from samplemind.search.dirty import index_lag
from samplemind.search.fold import count_fresh
from samplemind.search.optimizer import search_totals
from worker.metrics import catalogue
from worker.metrics.page import Page


class BatchReader:
    """Remembers how far each batch was, to tell which has stopped moving.

    It has a client of its own: the document models of this process may belong to another loop.
    """

    def __init__(self) -> None:
        self._client: AsyncMongoClient[Fields] | None = None
        self._moved: dict[UUID, tuple[int, float]] = {}

    async def read(self, connections: Connections, page: Page) -> None:
        """Read batches and their items by state."""
        settings = connections.settings.mongo
        if self._client is None:
            self._client = connect_mongo(settings)
        found = await batches_standing(self._client[settings.database])
        for state, batches in found.batches.items():
            page.put(catalogue.BATCHES, state, to=batches)
        for state, items in found.items.items():
            page.put(catalogue.BATCH_ITEMS, state, to=items)
        now = time.monotonic()
        moved = {}
        for batch, ended in found.ended.items():
            before = self._moved.get(batch)
            moved[batch] = before if before is not None and before[0] == ended else (ended, now)
        self._moved = moved
        idle_s = max((now - since for _, since in moved.values()), default=0.0)
        page.put(catalogue.BATCH_IDLE, to=idle_s)


async def read_index(connections: Connections, page: Page) -> None:
    """Read what waits for the index, and how long searches take."""
    lag = await index_lag(connections.broker)
    page.put(catalogue.INDEX_WAITING, to=lag.waiting)
    page.put(catalogue.INDEX_CLAIMED, to=lag.claimed)
    page.put(catalogue.INDEX_OLDEST, to=lag.oldest_s)
    async with connections.postgres.session() as session:
        fresh = await count_fresh(session)
        totals = await search_totals(session)
    page.put(catalogue.INDEX_FRESH, to=fresh)
    if totals is not None:
        page.put(catalogue.SEARCHES, to=totals.calls)
        page.put(catalogue.SEARCH_SECONDS, to=totals.seconds)
