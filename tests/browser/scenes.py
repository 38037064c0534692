"""What stands in the stores while a browser looks, and what each page is to show of it.

Every room of the console has its scenes here; a test fails for a room that has none.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from samplemind.backup.verification import Level
from samplemind.connections.resources import Connections
from samplemind.documents.batch_job import BatchState
from samplemind.ids import new_id
from samplemind.jobs.client import SyncJobs
from samplemind.jobs.letters import DeathCause
from samplemind.jobs.payloads import CreateBackup, IndexFiles
from samplemind.jobs.periodic import MANUAL
from samplemind.jobs.publishing import producer
from samplemind.repositories.periodic_runs import RunOutcome
from samplemind.settings import Settings
from tests.console_data import add_batch, add_letters
from tests.console_stores import (
    add_drill,
    add_library,
    add_run,
    back_up,
    fill_cache,
    leave_schedule,
    verify,
)

WORKER = "index@node-1"


@dataclass(frozen=True)
class Scene:
    """An address, in which the names of what was made may stand, and a text that it shows."""

    address: str
    shows: str
    name: str


SCENES: dict[str, tuple[Scene, ...]] = {
    "overview": (Scene("/overview", "jobs failed for good", "overview"),),
    "batches": (
        Scene("/batches", "finished, some failed", "batches"),
        Scene("/batches/{running}", "the file is not audio", "batch"),
    ),
    "failed-jobs": (
        Scene("/failed-jobs", "no space left in the bucket", "failed-jobs"),
        Scene("/failed-jobs/{letter}", "Traceback (most recent call last)", "failed-job"),
    ),
    "backups": (
        Scene("/backups", "before the upgrade", "backups"),
        Scene("/backups/{backup}", "Beside the live databases", "backup"),
    ),
    "schedule": (
        Scene("/schedule", "the bucket samples-archive is not there", "schedule"),
        Scene("/schedule/search.fold", "an operator", "periodic-job"),
    ),
    "database": (Scene("/database", "Share of time", "database"),),
    "search": (Scene("/search?q=dark+kick&plans=1", "/a/Dark_Kick_03.wav", "search"),),
    "cache": (Scene("/cache?pattern=search:*", "values match", "cache"),),
}
"""By the path of the room."""

FLOWERS = (
    Scene("/workers", WORKER, "workers"),
    Scene("/tasks", "search.index_files", "tasks"),
    Scene("/broker", "interactive", "broker"),
)
"""Flower's own pages."""


async def furnish(connections: Connections) -> dict[str, str]:
    """Fill the stores; return the names that stand in the addresses."""
    names = {}
    for furnisher in FURNISHERS:
        names |= await furnisher(connections)
    return names


async def _batches(connections: Connections) -> dict[str, str]:
    hours = timedelta(hours=1)
    running = await add_batch(
        connections, BatchState.RUNNING, done=61, failed=4, pending=35, name="Deep House Vol 3"
    )
    await add_batch(connections, BatchState.FINISHED, done=118, failed=2, age=2 * hours)
    await add_batch(connections, BatchState.FINISHED, done=300, age=3 * hours)
    await add_batch(connections, BatchState.PAUSED, done=8, pending=32, age=5 * hours)
    await add_batch(connections, BatchState.PENDING, pending=12, age=7 * hours)
    await add_batch(connections, BatchState.CANCELLED, done=40, age=26 * hours)
    return {"running": str(running)}


async def _letters(connections: Connections) -> dict[str, str]:
    (letter,) = await add_letters(connections, 1)
    await add_letters(connections, 5)
    full = "StorageError: there is no space left in the bucket samples-backup"
    await add_letters(connections, 2, task="backups.create", error=full, cause=DeathCause.FAILED)
    killed = "its workers died with it 4 times"
    await add_letters(
        connections, 3, task="batches.analyze", error=killed, cause=DeathCause.GIVEN_UP
    )
    return {"letter": str(letter)}


async def _queues(connections: Connections) -> dict[str, str]:
    with SyncJobs(connections.settings) as jobs:
        jobs.enqueue_many(IndexFiles(ids=[new_id()]) for _ in range(7))
    return {}


async def _schedule(connections: Connections) -> dict[str, str]:
    await leave_schedule(connections, known_for=timedelta(seconds=1))
    for number, seconds in enumerate((0.21, 0.34, 0.19, 1.62, 0.4, 0.28, 0.33)):
        await add_run(
            connections,
            "search.fold",
            RunOutcome.SUCCEEDED,
            slot=f"2026-01-01T00:0{number}:00Z",
            seconds=seconds,
            figures={"folded": 40 * number, "waiting": 0},
        )
    await add_run(connections, "search.fold", RunOutcome.SUCCEEDED, slot=f"{MANUAL}x")
    gone = "StorageError: the bucket samples-archive is not there"
    await add_run(connections, "retention.run", RunOutcome.FAILED, error=gone)
    same = {"compared": 3, "missing": 0, "stale": 0, "surplus": 0, "ahead": 0}
    await add_run(connections, "search.reconcile", RunOutcome.SUCCEEDED, figures=same)
    return {}


async def _backups(connections: Connections) -> dict[str, str]:
    made = await back_up(connections.settings, reason="before the upgrade")
    await verify(connections.settings, made.id, Level.DECODED)
    await add_drill(connections.settings, made.id)
    await back_up(connections.settings)
    with SyncJobs(connections.settings) as jobs:
        jobs.enqueue(CreateBackup(kind="dump", reason="for the auditors"))
    return {"backup": made.id}


async def _library(connections: Connections) -> dict[str, str]:
    await add_library(connections)
    await fill_cache(connections)
    return {}


FURNISHERS: list[Callable[[Connections], Awaitable[dict[str, str]]]] = [
    _batches,
    _letters,
    _queues,
    _schedule,
    _backups,
    _library,
]
"""Each makes what some pages show."""


def send_events(settings: Settings, count: int = 12) -> None:
    """Tell the console of a worker and of jobs, as workers do."""
    with (
        producer(settings) as app,
        app.events.default_dispatcher(hostname=WORKER) as dispatcher,
    ):
        dispatcher.send("worker-online", freq=2, sw_ident="py-celery", sw_ver="5.7", sw_sys="Linux")
        dispatcher.send("worker-heartbeat", freq=2, active=0, processed=count)
        for _ in range(count):
            job_id = str(uuid4())
            dispatcher.send(
                "task-received", uuid=job_id, name="search.index_files", args="()", kwargs="{}"
            )
            dispatcher.send("task-started", uuid=job_id)
            dispatcher.send("task-succeeded", uuid=job_id, result="None", runtime=0.21)
