"""Reads the stores at a pace of its own, in one thread, and serves what it read.

Invariant: a scrape asks nothing of the stores. Each area is read by itself, so that a store which
is away keeps none but its own figures from being renewed; those stay as they were, and their age
tells it. The thread ends with its process, and no error ends it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from threading import Thread

from samplemind.connections.resources import Connections
from samplemind.errors import SampleMindError
from samplemind.log import get_logger
from samplemind.settings import Settings
from worker.metrics import catalogue, serving
from worker.metrics.areas import backups, machine, queues, schedule, stores, work
from worker.metrics.page import Page, Rows
from worker.metrics.serving import FiguresServer

_LONGEST_S = 120.0
"""Seconds that one reading may take."""

_log = get_logger(__name__)

Read = Callable[[Connections, Page], Awaitable[None]]
Count = Callable[[Page], None]
"""Notes what the serving process itself has counted; asks no store."""


@dataclass(frozen=True, slots=True)
class Area:
    """A part of the platform, and how many paces there are between two readings of it."""

    name: str
    read: Read
    paces: int = 1


def areas() -> tuple[Area, ...]:
    """Return every area, ready to be read."""
    return (
        Area("stores", stores.read_answers),
        Area("postgres", stores.read_postgres),
        Area("broker", stores.read_broker),
        Area("cache", stores.read_cache),
        Area("queues", queues.read_queues),
        Area("workers", queues.read_workers),
        Area("dead_letters", queues.read_letters),
        Area("batches", work.BatchReader().read),
        Area("index", work.read_index),
        Area("schedule", schedule.read_schedule),
        Area("machine", machine.read_machine),
        # Listing an object store costs money, and nothing changes from minute to minute.
        Area("backups", backups.read_backups, paces=4),
        Area("wal", backups.read_wal, paces=4),
    )


@dataclass(slots=True)
class _Reading:
    """What is known of an area: its last page, when it was read, and how often that failed."""

    page: Page
    read_at: float | None = None
    seconds: float = 0.0
    failures: int = 0


class Exporter:
    """The figures of the platform in one process."""

    def __init__(self, settings: Settings, count: Count | None = None) -> None:
        self._settings = settings
        self._count = count
        self._areas = areas()
        self._readings = {area.name: _Reading(Page()) for area in self._areas}

    def start(self) -> FiguresServer:
        """Read and serve from now on, in daemon threads.

        Raises:
            OSError: the address cannot be listened on.
        """
        server = self.serve()
        Thread(target=self._run, name="figures-reader", daemon=True).start()
        _log.info("metrics_served", address=server.address)
        return server

    def serve(self) -> FiguresServer:
        """Serve what was read, and nothing more.

        Raises:
            OSError: the address cannot be listened on.
        """
        given = self._settings.metrics
        return FiguresServer(given.host, given.port, token=given.bearer(), page=self.render)

    def render(self) -> bytes:
        """Return the page that is served."""
        rows: dict[catalogue.Metric, Rows] = {}
        own = Page()
        for name, reading in self._readings.items():
            for metric, found in reading.page:
                rows.setdefault(metric, []).extend(found)
            if reading.read_at is not None:
                own.put(catalogue.RENEWED, name, to=reading.read_at)
                own.put(catalogue.READ_SECONDS, name, to=reading.seconds)
            own.put(catalogue.READ_FAILURES, name, to=reading.failures)
        if self._count is not None:
            self._count(own)
        return serving.render({**rows, **dict(own)})

    async def read_once(self, connections: Connections) -> None:
        """Read every area now."""
        await asyncio.gather(*(self._read(area, connections) for area in self._areas))

    def _run(self) -> None:
        asyncio.run(self._read_forever())

    async def _read_forever(self) -> None:
        async with Connections(self._settings, worker=True) as connections:
            await asyncio.gather(*(self._renew(area, connections) for area in self._areas))

    async def _renew(self, area: Area, connections: Connections) -> None:
        while True:
            await self._read(area, connections)
            await asyncio.sleep(self._settings.metrics.pace_s * area.paces)

    async def _read(self, area: Area, connections: Connections) -> None:
        reading, page = self._readings[area.name], Page()
        started = time.perf_counter()
        try:
            async with asyncio.timeout(_LONGEST_S):
                await area.read(connections, page)
        except (SampleMindError, TimeoutError, OSError) as error:
            reading.failures += 1
            _log.warning("metrics_not_renewed", area=area.name, error=str(error))
        except Exception:  # noqa: BLE001 - the outermost edge of a thread
            # A fault in reading one area must not end the others, nor go unseen.
            reading.failures += 1
            _log.exception("metrics_not_readable", area=area.name)
        else:
            reading.page, reading.read_at = page, time.time()
            reading.seconds = time.perf_counter() - started


def start(settings: Settings, count: Count | None = None) -> FiguresServer | None:
    """Serve the platform's figures where the settings want it; none where they cannot be.

    Args:
        settings: with the URL of each store.
        count: notes what this process itself has counted.
    """
    if not settings.metrics.enabled:
        return None
    try:
        return Exporter(settings, count).start()
    except OSError as error:
        # The console is worth more than its figures.
        given = settings.metrics
        _log.error("metrics_not_served", host=given.host, port=given.port, error=str(error))
        return None
