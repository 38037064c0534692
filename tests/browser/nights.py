"""What some nights leave in the store of backups, for pictures of the console.

Backups, WAL and the drill are real and of this moment; a time line of one minute shows nothing, so
the earlier nights are copies of them under the times of those nights.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import redis

from samplemind.backup.catalog import Catalog, HistoryEvent
from samplemind.backup.database_backup import DatabaseBackup
from samplemind.backup.keys import load_keyring
from samplemind.backup.manifest import BackupKind, Manifest, new_backup_id
from samplemind.backup.objects import object_key
from samplemind.backup.verification import Level
from samplemind.jobs.client import SyncJobs
from samplemind.jobs.payloads import CreateBackup
from samplemind.jobs.state import BEGIN, PROGRESS
from samplemind.settings import Settings
from samplemind.storage.opening import open_store

_NIGHTS = 6
_BASE_AGE = timedelta(days=4, hours=5)
_MAINTENANCE = "maintenance@node-3"


def leave_nights(settings: Settings) -> None:
    """Leave a week of backups, an archive of WAL, a drill, and a backup that runs."""
    backup = DatabaseBackup(settings=settings)
    base = backup.create_backup(BackupKind.PHYSICAL, reason="schedule")
    backup.archive_wal()
    _drill(backup)
    nightly = backup.create_backup(BackupKind.LOGICAL, reason="schedule")
    backup.verify_backup(nightly.id, level=Level.DECODED)
    archive = _Archive(settings)
    try:
        archive.copy(base, base.started_at - _BASE_AGE)
        for night in range(1, _NIGHTS + 1):
            archive.copy(nightly, nightly.started_at - timedelta(days=night))
    finally:
        archive.catalog.store.close()
    backup.archive_wal()
    _run_backup(settings)


def _drill(backup: DatabaseBackup) -> None:
    done = backup.drill(within_s=1.0)
    assert done.ok, done.problems


@dataclass
class _Archive:
    """Where copies of backups go."""

    settings: Settings

    def __post_init__(self) -> None:
        store = open_store(self.settings.storage, self.settings.home)
        self.catalog = Catalog(store, load_keyring(self.settings.backup))

    def copy(self, manifest: Manifest, at: datetime) -> None:
        """Add a copy of a backup as of that time, verified soon after."""
        store, took = self.catalog.store, manifest.finished_at - manifest.started_at
        copied = manifest.model_copy(
            update={
                "id": new_backup_id(manifest.kind, at, manifest.id[-8:]),
                "started_at": at,
                "finished_at": at + took,
            }
        )
        for record in manifest.objects:
            blocks = store.get_stream(object_key(manifest.id, record.name))
            store.put_stream(object_key(copied.id, record.name), blocks)
        self.catalog.publish(copied)
        self.catalog.record(
            HistoryEvent(
                backup_id=copied.id,
                level=Level.DECODED,
                at=at + timedelta(minutes=20),
                ok=True,
                seconds=4.2,
                actor=manifest.actor,
            )
        )


def _run_backup(settings: Settings) -> None:
    """Let a backup be under way, as the broker knows of one."""
    with SyncJobs(settings) as jobs:
        job_id = str(jobs.enqueue(CreateBackup(kind="logical", reason="before the move")))
    url = settings.broker.url
    assert url is not None
    with redis.Redis.from_url(url.get_secret_value()) as client:
        client.eval(BEGIN, 0, job_id, CreateBackup.job_name, _MAINTENANCE, 0)
        told = '{"phase": "postgres", "done": 1610612736, "total": 4026531840}'
        client.eval(PROGRESS, 0, job_id, told)
