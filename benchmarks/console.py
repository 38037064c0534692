"""How long an operator waits for a page of the console, and what a million events do to it.

Each page is measured in two ways. A *first visit* is of a console that has just started: every
panel is read from the stores, over connections that are opened for it. It is told too how long it
takes until the last panel is there, as a page does not wait for one that takes longer than its
patience. *While somebody looks*, a page is asked about once a second, which is oftener than
browsers do: a panel that stays fresh for longer (2 to 120 s, by what it costs) is then shown as it
was read before, so these figures say what people wait for and not what the reading costs.

100,000 jobs wait in the broker, and Flower has been told of as many.
"""

import asyncio
import base64
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psutil
from celery.events import EventDispatcher

from benchmarks.row import Row, row
from samplemind.connections.resources import Connections
from samplemind.documents.batch_item import WAITING, BatchItem, ItemError, ItemState
from samplemind.documents.batch_job import BatchJob, BatchState
from samplemind.documents.indexes import ensure_indexes
from samplemind.embedded.stack import EmbeddedStack
from samplemind.endpoints import Store
from samplemind.ids import new_id
from samplemind.jobs import dead_letters
from samplemind.jobs.client import SyncJobs
from samplemind.jobs.letters import INBOX, DeathCause, Letter, encode_arguments
from samplemind.jobs.payloads import IndexFiles
from samplemind.jobs.publishing import producer
from samplemind.migrate import migrate_postgres
from samplemind.repositories.batch_items import BatchItemRepository
from samplemind.repositories.batch_jobs import BatchJobRepository
from samplemind.settings import Settings, load_settings

PAGE_GOAL_MS = 300.0
GROWTH_GOAL = 1.1
JOBS, BATCHES, LETTERS = 100_000, 1_000, 500
EVENTS = 1_000_000
SOAK_S = 600.0

_ACCOUNT = "ada:bench"
_ROUND_S = 1.1
_ON_ITS_WAY = "The answer is on its way."
_EVENTS_OF_A_JOB = 3
_EVENTS_AT_ONCE = 51_000
_LEAST_EVENTS = 200_000
_QUIET_WITHIN_S = 120.0
_WORKERS = 4
_REPOSITORY = Path(__file__).parents[1]


def rows(*, quick: bool, soak: bool = False) -> list[Row]:
    """Measure the pages and the memory; `quick` with a tenth, `soak` for ten minutes at least."""
    with tempfile.TemporaryDirectory(prefix="samplemind-bench-") as name:
        home = Path(name)
        home.chmod(0o711)
        with EmbeddedStack(home, durable=False) as stack:
            settings = load_settings().model_copy(update={"home": home}).with_urls(stack.start())
            share = 10 if quick else 1
            names = asyncio.run(_fill(settings, share))
            with _console(settings, home) as (address, process):
                told = _tell(settings, process, JOBS * _EVENTS_OF_A_JOB // share)
                found = _renewals(address, _pages(names), rounds=5 if quick else 40, share=share)
                found += _soak(
                    settings,
                    process,
                    told,
                    events=max(_LEAST_EVENTS, EVENTS // share),
                    seconds=SOAK_S if soak else 0.0,
                )
            starts = 2 if quick else 10
            return _first_visits(settings, home, _pages(names), starts=starts, share=share) + found


def _pages(names: Mapping[str, str]) -> dict[str, str]:
    """Return the address of each page by what it is called."""
    return {
        "overview": "/overview",
        "batches": "/batches",
        "one batch with 2,000 failed files": f"/batches/{names['batch']}",
        "failed jobs": "/failed-jobs",
        "failed jobs, searched": "/failed-jobs?text=connection",
        "one failed job": f"/failed-jobs/{names['letter']}",
        "backups": "/backups",
        "schedule": "/schedule",
        "database": "/database",
        "search": "/search",
        "cache": "/cache",
        "Flower's workers": "/workers",
        "Flower's tasks": "/tasks",
        "Flower's tasks, their rows": "/tasks/datatable?draw=1&start=0&length=15"
        "&order[0][column]=0&order[0][dir]=desc&columns[0][data]=received",
    }


def _first_visits(
    settings: Settings, home: Path, pages: Mapping[str, str], *, starts: int, share: int
) -> list[Row]:
    """Visit each page once after each of some starts; Flower knows what it knew before."""
    first: dict[str, list[float]] = {name: [] for name in pages}
    whole: dict[str, list[float]] = {name: [] for name in pages}
    for _ in range(starts):
        with _console(settings, home) as (address, _):
            for name, path in pages.items():
                began = time.perf_counter()
                text, milliseconds = _fetch(address, path)
                first[name].append(milliseconds)
                while _ON_ITS_WAY in text and time.perf_counter() - began < _QUIET_WITHIN_S:
                    text, _ = _fetch(address, path)
                whole[name].append(1000 * (time.perf_counter() - began))
    slowest = max(whole, key=lambda name: max(whole[name]))
    return [
        *_judged(first, f"first visit, slowest of {starts}", max, share),
        row(
            f"console: first visit until every panel is there, slowest page ({slowest})",
            max(whole[slowest]),
            "ms",
        ),
    ]


def _renewals(address: str, pages: Mapping[str, str], *, rounds: int, share: int) -> list[Row]:
    """Visit the pages in turn, again and again."""
    times: dict[str, list[float]] = {name: [] for name in pages}
    for _ in range(rounds):
        began = time.perf_counter()
        for name, path in pages.items():
            times[name].append(_fetch(address, path)[1])
        time.sleep(max(0.0, _ROUND_S - (time.perf_counter() - began)))
    return _judged(times, "while somebody looks, p95", _p95, share)


def _judged(
    times: Mapping[str, list[float]],
    how: str,
    figure: Callable[[list[float]], float],
    share: int,
) -> list[Row]:
    what = f"{JOBS // share:,} jobs, {BATCHES // share:,} batches, {LETTERS // share} failed"
    return [
        row(
            f"console: {name}, {how} ({what})",
            (milliseconds := figure(taken)),
            "ms",
            goal=f"< {PAGE_GOAL_MS:.0f}",
            met=milliseconds < PAGE_GOAL_MS,
        )
        for name, taken in times.items()
    ]


def _soak(
    settings: Settings, process: psutil.Process, told: int, *, events: int, seconds: float
) -> list[Row]:
    """Send the rest of the events; memory that is bounded is the same at the end as midway."""
    began, cpu_began, sent = time.perf_counter(), _cpu_s(process), told
    samples = [(sent, _rss_mib(process))]
    while sent < events or time.perf_counter() - began < seconds:
        sent += _tell(settings, process, _EVENTS_AT_ONCE)
        samples.append((sent, _rss_mib(process)))
    half = next(memory for count, memory in samples if count >= sent / 2)
    end = samples[-1][1]
    took, cpu = time.perf_counter() - began, _cpu_s(process) - cpu_began
    return [
        row(
            f"console: memory after {sent:,} events beside that after half",
            end / half,
            "×",
            goal=f"<= {GROWTH_GOAL}",
            met=end / half <= GROWTH_GOAL,
        ),
        row(f"console: memory after {sent:,} events", end, "MiB"),
        row(
            f"console: highest memory in {took:,.0f} s", max(memory for _, memory in samples), "MiB"
        ),
        row("console: processor time for an event", 1e6 * cpu / max(1, sent - told), "µs"),
    ]


def _tell(settings: Settings, process: psutil.Process, count: int) -> int:
    """Send events of jobs, as workers do in bunches, and wait until the console has taken them."""
    with producer(settings) as app, app.connection_for_write() as connection:
        dispatchers = [
            EventDispatcher(
                connection,
                hostname=f"index@node-{number}",
                app=app,
                buffer_group=["task"],
                buffer_limit=100,
                delivery_mode=1,
            )
            for number in range(_WORKERS)
        ]
        for number in range(0, count, _EVENTS_OF_A_JOB):
            dispatcher = dispatchers[number % _WORKERS]
            job_id = str(uuid4())
            dispatcher.send(
                "task-received",
                uuid=job_id,
                name="search.index_files",
                args="()",
                kwargs="{'ids': […]}",
            )
            dispatcher.send("task-started", uuid=job_id)
            dispatcher.send("task-succeeded", uuid=job_id, result="None", runtime=0.01)
            if number % 9_000 == 0:
                for each in dispatchers:
                    each.send("worker-heartbeat", freq=5, active=1, processed=number)
                _await_quiet(process)
        for each in dispatchers:
            each.flush()
    _await_quiet(process)
    return count


def _await_quiet(process: psutil.Process) -> None:
    """Wait until the console has nothing to do: what is published and not read would be lost."""
    deadline = time.monotonic() + _QUIET_WITHIN_S
    while True:
        assert time.monotonic() < deadline, f"the console is busy after {_QUIET_WITHIN_S:.0f} s"
        before = _cpu_s(process)
        time.sleep(0.25)
        if _cpu_s(process) - before < 0.05:
            return


async def _fill(settings: Settings, share: int) -> dict[str, str]:
    await migrate_postgres(settings)
    async with Connections(settings) as connections:
        await ensure_indexes(await connections.documents())
        names = {
            "batch": str(await _add_batches(share)),
            "letter": await _add_letters(connections, share),
        }
    with SyncJobs(settings) as jobs:
        jobs.enqueue_many(IndexFiles(ids=[new_id()]) for _ in range(JOBS // share))
    return names


async def _add_batches(share: int) -> UUID:
    now = datetime.now(UTC)
    jobs, items = BatchJobRepository(), BatchItemRepository()
    total = BATCHES // share
    large = new_id()
    for number in range(total):
        running = number >= total - 20
        batch_id = large if number == total - 1 else new_id()
        size = 20_000 if batch_id == large else 100 if running else 20
        states = [
            ItemState.FAILED
            if seq % 10 == 3
            else ItemState.PENDING
            if running and seq > size / 2
            else ItemState.DONE
            for seq in range(size)
        ]
        await items.insert(
            [
                BatchItem(
                    batch_id=batch_id,
                    seq=seq,
                    path=f"/samples/pack {number}/sound_{seq:05d}.wav",
                    state=state,
                    due_at=WAITING if state is ItemState.PENDING else None,
                    error=ItemError(code="not_audio", message="the file holds no audio")
                    if state is ItemState.FAILED
                    else None,
                )
                for seq, state in enumerate(states)
            ]
        )
        created_at = now - timedelta(minutes=total - number)
        await jobs.add(
            BatchJob(
                id=batch_id,
                roots=[f"/samples/pack {number}"],
                total=size,
                chunk_size=32,
                state=BatchState.RUNNING if running else BatchState.FINISHED,
                created_at=created_at,
                started_at=created_at,
                finished_at=None if running else created_at + timedelta(seconds=40),
                counts=None if running else await items.count_by_state(batch_id),
            )
        )
    return large


async def _add_letters(connections: Connections, share: int) -> str:
    now = datetime.now(UTC)
    letters = [
        Letter(
            job_id=str(new_id()),
            task=("search.index_files", "batches.analyze", "packs.publish")[number % 3],
            body=encode_arguments([], {"ids": [str(new_id()) for _ in range(100)]}),
            schema_version=1,
            cause=DeathCause.RETRIES_EXHAUSTED,
            error="StoreUnavailableError: PostgreSQL did not answer: connection refused",
            traceback="  File …, line 1, in work\n" * 100,
            attempts=4,
            worker="index@node-3",
            first_failed_at=now - timedelta(minutes=number + 9),
            last_failed_at=now - timedelta(minutes=number),
        )
        for number in range(LETTERS // share)
    ]
    async with connections.broker.pipeline(transaction=False) as pipe:
        for letter in letters:
            pipe.xadd(INBOX, letter.to_fields())
        await pipe.execute()
    await dead_letters.collect(connections)
    return str(letters[0].id)


@contextmanager
def _console(settings: Settings, home: Path) -> Iterator[tuple[str, psutil.Process]]:
    urls = {store: settings.url(store) for store in Store}
    environment = {
        **os.environ,
        **{
            f"SAMPLEMIND_{store.name}_URL": url.get_secret_value()
            for store, url in urls.items()
            if url is not None
        },
        "SAMPLEMIND_HOME": str(home / "console"),
        "SAMPLEMIND_CONSOLE_BASIC_AUTH": _ACCOUNT,
    }
    log = home / "console.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker.main", "console"],
            cwd=_REPOSITORY,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _await_address(log, process), psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _await_address(log: Path, process: subprocess.Popen[bytes]) -> str:
    while process.poll() is None:
        found = re.search(r'^\{.*"event": "console_ready".*$', log.read_text(), re.M)
        if found:
            return f"http://127.0.0.1:{json.loads(found[0])['port']}"
        time.sleep(0.1)
    message = f"the console did not start: {log.read_text()[-2000:]}"
    raise RuntimeError(message)


def _fetch(address: str, path: str) -> tuple[str, float]:
    """Return the page, and how many milliseconds it took."""
    request = urllib.request.Request(address + path)  # noqa: S310
    token = base64.b64encode(_ACCOUNT.encode()).decode()
    request.add_header("Authorization", f"Basic {token}")
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        text = answer.read().decode()
    return text, 1000 * (time.perf_counter() - began)


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def _rss_mib(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
