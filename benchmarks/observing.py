"""What it costs to be watched: metrics and logs of jobs that do nothing, and a scrape."""

import asyncio
import json
import time
import urllib.request
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

from pydantic import SecretStr

from benchmarks.jobs.probes import Nothing
from benchmarks.jobs.servers import broker, drain
from benchmarks.row import Row, row
from samplemind.connections.resources import Connections
from samplemind.documents.indexes import ensure_indexes
from samplemind.embedded.stack import EmbeddedStack
from samplemind.jobs.client import SyncJobs
from samplemind.jobs.payloads import PAYLOADS
from samplemind.jobs.wire import HEARTBEAT_PATTERN, Queue
from samplemind.migrate import migrate_postgres
from samplemind.settings import BrokerSettings, Settings, load_settings
from worker.metrics import counting
from worker.metrics.counting import Outcome
from worker.metrics.exporter import Exporter

_GOAL_SHARE = 0.05
_GOAL_SCRAPE_MS = 200.0
_SCRAPES = 200


def rows(*, quick: bool) -> list[Row]:
    """Measure all of it."""
    return [*_throughput(quick), _counting(), *_scrapes()]


def _throughput(quick: bool) -> list[Row]:
    number, rounds = (1_500, 1) if quick else (5_000, 5)
    watched: list[float] = []
    alone: list[float] = []
    with broker() as (url, client), TemporaryDirectory(prefix="samplemind-bench-") as name:
        settings = Settings(broker=BrokerSettings(url=SecretStr(url)))

        def run(module: str, level: str) -> float:
            client.flushdb()
            with SyncJobs(settings) as jobs:
                jobs.enqueue_many(Nothing() for _ in range(number))
            command = ["worker.main", "index", f"--include={module}", "--concurrency=2"]
            return drain(
                command,
                client,
                "sm:default",
                "sm:unacked",
                url=url,
                home=Path(name),
                environment={"SAMPLEMIND_LOG_LEVEL": level},
            )

        # In turn, so that a slow minute of the machine meets both.
        for _ in range(rounds):
            watched.append(run("benchmarks.jobs.probes", "INFO"))
            alone.append(run("benchmarks.jobs.unobserved", "ERROR"))
    ours, bare = median(watched), median(alone)
    cost = 1 - ours / bare
    return [
        row("jobs that do nothing, counted and logged", ours, "jobs/s"),
        row("jobs that do nothing, neither counted nor logged", bare, "jobs/s"),
        row(
            "what counting and logging cost",
            cost * 100,
            "% of jobs/s",
            goal=f"< {_GOAL_SHARE * 100:.0f}",
            met=cost < _GOAL_SHARE,
        ),
    ]


def _counting() -> Row:
    tasks = [payload.job_name for payload in PAYLOADS]
    cells = counting.lay_out(tasks, [queue.value for queue in Queue], processes=8)
    counting.begin(cells, 1)
    number = 100_000
    started = time.process_time()
    for _ in range(number):
        counting.waited("search.index", 0.2)
        counting.ended("search.index", Outcome.SUCCEEDED, 0.1)
    seconds = time.process_time() - started
    return row("counting one job", seconds / number * 1e6, "µs of CPU")


def _scrapes() -> list[Row]:
    with TemporaryDirectory(prefix="samplemind-bench-") as name:
        home = Path(name)
        home.chmod(0o711)  # as root, PostgreSQL runs as another account
        with EmbeddedStack(home, durable=False) as stack:
            settings = load_settings().model_copy(update={"home": home})
            settings = settings.with_urls(stack.start())
            exporter, seconds = asyncio.run(_read(settings))
            server = exporter.serve()
            try:
                platform = _p95_ms(f"{server.address}/metrics")
            finally:
                server.close()
    worker = _worker_scrape_ms()
    return [
        row("reading every area once", seconds * 1000, "ms"),
        row(
            "scrape of the platform, p95",
            platform,
            "ms",
            goal=f"< {_GOAL_SCRAPE_MS:.0f}",
            met=platform < _GOAL_SCRAPE_MS,
        ),
        row(
            "scrape of a worker, p95",
            worker,
            "ms",
            goal=f"< {_GOAL_SCRAPE_MS:.0f}",
            met=worker < _GOAL_SCRAPE_MS,
        ),
    ]


async def _read(settings: Settings) -> tuple[Exporter, float]:
    await migrate_postgres(settings)
    exporter = Exporter(settings)
    async with Connections(settings, worker=True) as connections:
        await ensure_indexes(await connections.documents())
        await exporter.read_once(connections)
        started = time.perf_counter()
        await exporter.read_once(connections)
        return exporter, time.perf_counter() - started


def _worker_scrape_ms() -> float:
    figures: list[float] = []
    with broker() as (url, client), TemporaryDirectory(prefix="samplemind-bench-") as name:
        with SyncJobs(Settings(broker=BrokerSettings(url=SecretStr(url)))) as jobs:
            jobs.enqueue_many(Nothing() for _ in range(50))

        def scrape() -> None:
            address = None
            while address is None:
                for key in client.scan_iter(HEARTBEAT_PATTERN):
                    address = json.loads(client.get(key) or "{}").get("address")  # type: ignore[arg-type]
                time.sleep(0.05)
            figures.append(_p95_ms(f"{address}/metrics"))

        drain(
            ["worker.main", "index", "--include=benchmarks.jobs.probes", "--concurrency=2"],
            client,
            "sm:default",
            "sm:unacked",
            url=url,
            home=Path(name),
            then=scrape,
        )
    return figures[0]


def _p95_ms(address: str) -> float:
    taken = []
    for _ in range(_SCRAPES):
        started = time.perf_counter()
        with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 - our own
            answer.read()
        taken.append((time.perf_counter() - started) * 1000)
    return quantiles(taken, n=20)[-1]
