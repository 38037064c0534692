"""Jobs that back up, verify, drill and tidy; a second one at the same time is refused."""

import dataclasses
from typing import Any

from samplemind.backup.control import Control, Step
from samplemind.backup.database_backup import DatabaseBackup
from samplemind.backup.manifest import BackupKind
from samplemind.backup.verdicts import Verification
from samplemind.backup.verification import Level
from samplemind.errors import BackupError
from samplemind.jobs.payloads import (
    ArchiveWal,
    CreateBackup,
    CreateBase,
    DrillBackup,
    PruneBackups,
    VerifyBackup,
    VerifyRestored,
)
from samplemind.log import get_logger
from tasks.progress import Progress
from worker.app import app
from worker.runtime import connections
from worker.task import Job

_HOUR_S = 3600
_LONG = {"soft_time_limit": 12 * _HOUR_S, "time_limit": 12 * _HOUR_S + 300}

_log = get_logger(__name__)


@app.task(base=Job, bind=True, name=CreateBackup.job_name, ignore_result=False, **_LONG)
def create(self: Job, **payload: Any) -> dict[str, Any]:
    """Back both stores up."""
    order = CreateBackup.model_validate(payload)
    backup = _backup_beside_queries()
    made = backup.create_backup(
        BackupKind(order.kind), reason=order.reason, control=_control(self, backup)
    )
    return {
        "id": made.id,
        "size_bytes": made.stored_bytes,
        "source_bytes": made.source_bytes,
        "sha256": made.sha256,
    }


@app.task(base=Job, bind=True, name=VerifyBackup.job_name, ignore_result=False, **_LONG)
def verify(self: Job, **payload: Any) -> dict[str, Any]:
    """Verify a backup; one that is not good fails the job, so that operators see it."""
    order = VerifyBackup.model_validate(payload)
    backup = _backup()
    found = backup.verify_backup(
        order.backup_id, level=Level(order.level), control=_control(self, backup)
    )
    return _told(found)


@app.task(base=Job, bind=True, name=VerifyRestored.job_name, ignore_result=False, **_LONG)
def verify_restored(self: Job) -> dict[str, Any]:
    """Restore the newest backup and check it; a job of its own, so that it has a schedule."""
    backup = _backup()
    return _told(backup.verify_backup(level=Level.RESTORED, control=_control(self, backup)))


@app.task(base=Job, bind=True, name=DrillBackup.job_name, ignore_result=False, **_LONG)
def drill(self: Job, **payload: Any) -> dict[str, Any]:
    """Recover to a random moment and compare."""
    order = DrillBackup.model_validate(payload)
    backup = _backup()
    return _told(backup.drill(order.backup_id, control=_control(self, backup)))


@app.task(base=Job, bind=True, name=CreateBase.job_name, ignore_result=False, **_LONG)
def create_base(self: Job) -> dict[str, Any] | None:
    """Take the next base backup and verify it, where an archive was begun."""
    backup = _backup_beside_queries()
    if backup.archive_lag() is None:
        return None
    control = _control(self, backup)
    made = backup.create_backup(BackupKind.INCREMENTAL, reason="scheduled", control=control)
    return _told(backup.verify_backup(made.id, level=Level.CHECKSUMS, control=control))


@app.task(base=Job, name=PruneBackups.job_name, ignore_result=False, **_LONG)
def prune() -> dict[str, Any]:
    """Delete what retention no longer keeps."""
    cleanup = _backup().cleanup_old_backups()
    return {
        "deleted": list(cleanup.pruned.deleted),
        "freed_bytes": cleanup.pruned.freed_bytes,
        "wal_segments": cleanup.wal_segments,
    }


@app.task(base=Job, name=ArchiveWal.job_name)
def archive_wal() -> dict[str, Any] | None:
    """Bring the WAL into the store, where an archive was begun."""
    report = _backup().archive_wal()
    return None if report is None else dataclasses.asdict(report)


def _backup() -> DatabaseBackup:
    return DatabaseBackup(settings=connections().settings)


def _backup_beside_queries() -> DatabaseBackup:
    settings = connections().settings
    return DatabaseBackup(
        settings=settings.model_copy(update={"backup": settings.backup.beside_queries()})
    )


def _control(job: Job, backup: DatabaseBackup) -> Control:
    progress = Progress(job)

    def tell(step: Step) -> None:
        progress.tell(step.done, step.total, phase=step.phase)

    return backup.control(tell=tell)


def _told(found: Verification) -> dict[str, Any]:
    if not found.ok:
        _log.error(
            "backup.not_good", backup_id=found.id, level=found.level, problems=found.problems
        )
        message = f"backup {found.id} failed at level {found.level}: {found.problems[0]}"
        raise BackupError(message)
    return dataclasses.asdict(found)
