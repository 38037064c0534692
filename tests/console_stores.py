"""A schedule, backups, an index and a cache in the stores, for the tests of the console."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from samplemind.backup.catalog import Catalog, HistoryEvent
from samplemind.backup.database_backup import DatabaseBackup
from samplemind.backup.keys import load_keyring
from samplemind.backup.manifest import BackupKind, Manifest
from samplemind.backup.verification import Level
from samplemind.cache.redis_cache import HOUR
from samplemind.cache.searches import CachedSearch
from samplemind.connections.resources import Connections
from samplemind.jobs.periodic import LEADER_KEY, TABLE_KEY
from samplemind.repositories.periodic_runs import PeriodicRunRepository, RunOutcome
from samplemind.search.filters import Filters
from samplemind.search.indexer import index_files
from samplemind.settings import Settings
from samplemind.storage.opening import open_store
from schedules.beat import table
from tests.library import add_file, unit_vector

EVERYTHING = Filters(everything=True)
BEAT = "beat-1:4711"


async def leave_schedule(connections: Connections, *, known_for: timedelta) -> None:
    """Leave in Redis what a leading beat leaves that has known its entries for so long."""
    since = datetime.now(UTC) - known_for
    for entry in table(connections.settings):
        await connections.broker.hset(TABLE_KEY, entry.name, replace(entry, since=since).to_json())
    await connections.broker.set(LEADER_KEY, f"{BEAT}:0f3a")


async def add_run(
    connections: Connections,
    name: str,
    outcome: RunOutcome,
    *,
    slot: str = "2026-01-01T00:00:00Z",
    seconds: float = 0.4,
    figures: dict[str, Any] | None = None,
    error: str | None = None,
) -> None:
    """Record a run of a periodic job as a worker does."""
    async with connections.postgres.session() as session:
        runs = PeriodicRunRepository(session)
        run_id = await runs.start(name, slot, f"job of {name} {slot}", "node-2")
        await runs.end(run_id, outcome, seconds, figures or {}, error)


async def back_up(
    settings: Settings, kind: BackupKind = BackupKind.LOGICAL, *, reason: str = "the night"
) -> Manifest:
    """Make a real backup of the stores."""
    backup = DatabaseBackup(settings=settings)
    return await asyncio.to_thread(backup.create_backup, kind, reason=reason)


async def verify(settings: Settings, backup_id: str, level: Level = Level.CHECKSUMS) -> None:
    """Verify it."""
    backup = DatabaseBackup(settings=settings)
    await asyncio.to_thread(backup.verify_backup, backup_id, level=level)


async def add_drill(settings: Settings, backup_id: str) -> None:
    """Keep with a backup what a drill of it has found, as a drill does."""
    evidence = {
        "method": "restore of a logical backup",
        "recovery_s": 41.7,
        "data_loss_window_s": 312.4,
    }
    event = HistoryEvent(
        backup_id=backup_id,
        level=4,
        at=datetime.now(UTC),
        ok=True,
        seconds=48.2,
        actor="worker@node-3",
        evidence=evidence,
    )
    store = open_store(settings.storage, settings.home)
    try:
        await asyncio.to_thread(Catalog(store, load_keyring(settings.backup)).record, event)
    finally:
        store.close()


async def add_library(connections: Connections) -> dict[str, str]:
    """Index a few files; return their ids by a short name."""
    await connections.documents()
    shot: dict[str, Any] = {"kind": "one_shot", "duration_s": 0.4}
    loop: dict[str, Any] = {"kind": "loop", "tempo_bpm": 128.0, "key": "F# minor"}
    files = {
        "kick": await add_file("/a/Dark_Kick_03.wav", vector=unit_vector(1), **shot),
        "second": await add_file("/a/Dark_Kick_04.wav", vector=unit_vector(2), **shot),
        "loop": await add_file("/a/House_Loop.wav", vector=unit_vector(3), **loop),
    }
    await index_files(connections, [file.id for file in files.values()])
    return {name: str(file.id) for name, file in files.items()}


async def fill_cache(connections: Connections) -> None:
    """Search some things, some of them again, and keep values of another kind."""
    async with CachedSearch(connections) as searches:
        for words in ("kick", "loop", "kick", "kick"):
            await searches.search_audio_files(words, filters=EVERYTHING)
    cache = connections.cached.cache
    await cache.set_many({f"report:{number}": number for number in range(3)}, HOUR)
    await cache.flush_counts()
