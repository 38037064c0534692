"""How old, large and proven the backups are, and how far the archive of WAL is behind."""

import asyncio
from collections.abc import Sequence

from samplemind.backup.catalog import DRILL_LEVEL, CatalogEntry
from samplemind.backup.database_backup import DatabaseBackup
from samplemind.backup.manifest import BackupKind
from samplemind.connections.resources import Connections
from samplemind.errors import StackNotRunningError
from worker.metrics import catalogue
from worker.metrics.page import Page

_LEVELS = range(1, DRILL_LEVEL + 1)


async def read_backups(connections: Connections, page: Page) -> None:
    """Read the catalogue in the store of backups."""
    backup = DatabaseBackup(settings=connections.settings)
    put_backups(page, await asyncio.to_thread(backup.list_backups))


async def read_wal(connections: Connections, page: Page) -> None:
    """Read how much WAL the archive has not received, where one was begun."""
    backup = DatabaseBackup(settings=connections.settings)
    try:
        lag = await asyncio.to_thread(backup.archive_lag)
    except StackNotRunningError:
        return
    if lag is not None:
        page.put(catalogue.WAL_LAG, to=lag.slot_bytes)


def put_backups(page: Page, entries: Sequence[CatalogEntry]) -> None:
    """Note what the entries, the newest first, say."""
    good = [entry for entry in entries if entry.good]
    page.put(catalogue.BACKUPS, "good", to=len(good))
    page.put(catalogue.BACKUPS, "bad", to=len(entries) - len(good))
    for kind in BackupKind:
        newest = next(
            (entry.manifest for entry in good if entry.manifest and entry.manifest.kind is kind),
            None,
        )
        if newest is not None:
            page.put(catalogue.BACKUP_LATEST, kind.value, to=newest.started_at.timestamp())
            page.put(catalogue.BACKUP_SIZE, kind.value, to=newest.stored_bytes)
            seconds = (newest.finished_at - newest.started_at).total_seconds()
            page.put(catalogue.BACKUP_DURATION, kind.value, to=seconds)
    verified = good[0].verified if good else None
    page.put(catalogue.BACKUP_VERIFIED_LEVEL, to=verified.level if verified else 0)
    events = [event for entry in entries for event in entry.latest if event.ok]
    for level in _LEVELS:
        latest = max((event.at for event in events if event.level >= level), default=None)
        if latest is not None:
            page.put(catalogue.BACKUP_VERIFIED, str(level), to=latest.timestamp())
