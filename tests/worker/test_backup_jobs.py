"""The jobs of backups, run in this process over the stores of the tests."""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from samplemind.backup.database_backup import DatabaseBackup
from samplemind.backup.postgres_tools import Server
from samplemind.backup.wal import drop_slot
from samplemind.endpoints import Store
from samplemind.errors import BackupError, NotFoundError
from samplemind.jobs.payloads import (
    ArchiveWal,
    CreateBackup,
    CreateBase,
    DrillBackup,
    Payload,
    PruneBackups,
    VerifyBackup,
    VerifyRestored,
)
from samplemind.jobs.wire import Queue, queue_for
from samplemind.settings import Settings, get_settings
from schedules.beat import BEAT_SCHEDULE
from worker import runtime
from worker.app import TASK_MODULES, app
from worker.roles import ROLES

Run = Callable[[Payload], Any]


@pytest.fixture
def run_job(migrated: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    for store in Store:
        url = migrated.url(store)
        assert url is not None
        monkeypatch.setenv(f"SAMPLEMIND_{store.value.upper()}_URL", url.get_secret_value())
    monkeypatch.setenv("SAMPLEMIND_STORAGE_PATH", str(tmp_path / "store"))
    monkeypatch.setenv("SAMPLEMIND_HOME", str(tmp_path))
    get_settings.cache_clear()
    for module in TASK_MODULES:
        importlib.import_module(module)
    yield lambda payload: app.tasks[payload.job_name](**payload.model_dump(mode="json"))
    runtime.close()
    get_settings.cache_clear()


def test_a_night_backs_up_verifies_and_tidies(run_job: Run, tmp_path: Path) -> None:
    made = run_job(CreateBackup(reason="the night"))
    assert made["size_bytes"] > 0
    assert len(made["sha256"]) == 64

    found = run_job(VerifyBackup(level=1))
    assert (found["id"], found["ok"], found["problems"]) == (made["id"], True, ())

    assert run_job(PruneBackups())["deleted"] == []
    assert run_job(ArchiveWal()) is None

    objects = tmp_path / "store" / "data" / made["id"]
    largest = max((p for p in objects.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    with pytest.raises(BackupError, match=made["id"]):
        run_job(VerifyBackup(level=1))
    with pytest.raises(NotFoundError, match="no good"):
        run_job(DrillBackup())


def test_base_backups_follow_each_other_once_an_archive_was_begun(run_job: Run) -> None:
    assert run_job(CreateBase()) is None
    begun = run_job(CreateBackup(kind="physical"))
    try:
        found = run_job(CreateBase())
        assert (found["level"], found["ok"]) == (1, True)
        entries = DatabaseBackup(settings=get_settings()).list_backups()
        assert [(each.id, each.manifest_parent) for each in entries] == [
            (found["id"], begun["id"]),
            (begun["id"], None),
        ]
    finally:
        url = get_settings().postgres.url
        assert url is not None
        drop_slot(Server(url))


def test_backups_wait_where_they_delay_nothing_short() -> None:
    for payload in (
        CreateBackup,
        CreateBase,
        VerifyBackup,
        VerifyRestored,
        DrillBackup,
        PruneBackups,
    ):
        assert queue_for(payload.job_name) is Queue.MAINTENANCE
    serving = [role.name for role in ROLES.values() if Queue.MAINTENANCE in role.queues]
    assert serving == ["maintenance"]


def test_wal_does_not_wait_behind_a_backup() -> None:
    assert queue_for(ArchiveWal.job_name) is not Queue.MAINTENANCE


def test_every_level_is_scheduled() -> None:
    assert BEAT_SCHEDULE[VerifyBackup.job_name].payload == VerifyBackup(level=1)
    assert {VerifyRestored.job_name, DrillBackup.job_name} <= set(BEAT_SCHEDULE)
