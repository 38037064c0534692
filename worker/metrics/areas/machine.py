"""The disks that the platform writes to, and the servers that it runs itself."""

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

from samplemind.connections.resources import Connections
from samplemind.embedded.home import StackHome
from samplemind.embedded.placement import find_placement
from samplemind.endpoints import Store, read_endpoints
from samplemind.settings import Settings, StorageKind
from worker.metrics import catalogue
from worker.metrics.page import Page


async def read_machine(connections: Connections, page: Page) -> None:
    """Read free space, and which embedded servers live."""
    await asyncio.to_thread(_read, connections.settings, page)


def places(settings: Settings) -> Mapping[str, Path]:
    """Return where this machine's processes write, by a name for it."""
    found = {"home": settings.home}
    if settings.storage.kind is StorageKind.LOCAL:
        found["backups"] = settings.storage.path or settings.home / "backups"
    placement = find_placement(StackHome(settings.home))
    if placement is not None:
        found["postgres"] = placement.data
    return found


def _read(settings: Settings, page: Page) -> None:
    for name, path in places(settings).items():
        existing = next(place for place in (path, *path.parents) if place.exists())
        usage = shutil.disk_usage(existing)
        page.put(catalogue.DISK_FREE, name, to=usage.free)
        page.put(catalogue.DISK_SIZE, name, to=usage.total)
    home = StackHome(settings.home)
    for store in read_endpoints(settings.home):
        record = home.process(Store(store).value).record
        page.put(catalogue.EMBEDDED_UP, store.value, to=record is not None and record.is_alive())
