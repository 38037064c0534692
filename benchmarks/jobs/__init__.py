"""What the guarantees of jobs cost, beside plain Celery, Dramatiq and Huey on the same broker."""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import SecretStr

from benchmarks.jobs.servers import broker, drain
from benchmarks.row import Row, row
from samplemind.ids import new_id
from samplemind.jobs.client import SyncJobs
from samplemind.jobs.payloads import IndexFiles
from samplemind.settings import BrokerSettings, Settings

_PROCESSES = "--concurrency=2"


def rows(*, quick: bool) -> list[Row]:
    """Measure enqueueing and running."""
    return [*_enqueue(quick), *_run(quick)]


def _enqueue(quick: bool) -> list[Row]:
    many, few = (20_000, 2_000) if quick else (100_000, 10_000)
    with broker() as (url, client):
        payloads = [IndexFiles(ids=(new_id(),)) for _ in range(many)]
        with _jobs(url) as jobs:
            jobs.enqueue_many(payloads[:500])
            ours = _rate(many, lambda: jobs.enqueue_many(payloads))
        # What producers bring is often not validated yet.
        fields = [payload.model_dump(mode="json") for payload in payloads]
        client.flushdb()
        with _jobs(url) as jobs:
            validated = _rate(
                many, lambda: jobs.enqueue_many(IndexFiles.read(each) for each in fields)
            )
        client.flushdb()
        peers = {
            "Celery apply_async": _rate(few, lambda: _celery(url, fields[:few])),
            "Dramatiq": _rate(few, lambda: _dramatiq(url, fields[:few])),
            "Huey": _rate(few, lambda: _huey(url, fields[:few])),
        }
    fastest = max(peers, key=lambda name: peers[name])
    goal = 15_000
    return [
        row(
            f"enqueue_many of {many:,} payloads",
            ours,
            "jobs/s",
            peer=(fastest, peers[fastest]),
            ratio=ours / peers[fastest],
            goal=f"≥ {goal:,}",
            met=ours >= goal,
        ),
        row(
            f"enqueue_many of {many:,}, validation included",
            validated,
            "jobs/s",
            peer=(fastest, peers[fastest]),
            ratio=validated / peers[fastest],
            goal=f"≥ {goal:,}",
            met=validated >= goal,
        ),
        *(
            row(
                "enqueue_many beside this peer",
                ours,
                "jobs/s",
                peer=(name, rate),
                ratio=ours / rate,
            )
            for name, rate in peers.items()
            if name != fastest
        ),
    ]


def _run(quick: bool) -> list[Row]:
    from benchmarks.jobs.probes import Nothing

    number = 1_500 if quick else 8_000
    with broker() as (url, client), TemporaryDirectory(prefix="samplemind-bench-") as name:
        home = Path(name)
        platform = ["worker.main", "index", "--include=benchmarks.jobs.probes", _PROCESSES]
        plain = ["celery", "-A", "benchmarks.jobs.plain", "worker", "--loglevel=INFO", _PROCESSES]
        ours: list[float] = []
        theirs: list[float] = []
        # In turn, so that a slow minute of the machine meets both.
        for _ in range(1 if quick else 3):
            client.flushdb()
            with _jobs(url) as jobs:
                jobs.enqueue_many(Nothing() for _ in range(number))
            ours.append(drain(platform, client, "sm:default", "sm:unacked", url=url, home=home))
            client.flushdb()
            _celery_nothing(url, number)
            theirs.append(drain(plain, client, "default", "unacked", url=url, home=home))
    best, peer = max(ours), max(theirs)
    return [
        row(
            "jobs that do nothing, all guarantees on",
            best,
            "jobs/s",
            peer=("Celery, acks_late", peer),
            ratio=best / peer,
            goal="≥ 0.9 × peer",
            met=best >= 0.9 * peer,
        )
    ]


def _jobs(url: str) -> SyncJobs:
    return SyncJobs(Settings(broker=BrokerSettings(url=SecretStr(url))))


def _rate(number: int, work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return number / (time.perf_counter() - started)


def _nothing(**_: object) -> None:
    """Be the peers' job."""


def _celery(url: str, payloads: list[dict[str, Any]]) -> None:
    from celery import Celery

    app = Celery("peer", broker=url, set_as_current=False)
    app.conf.task_ignore_result = True
    task = app.task(name="peer.index")(_nothing)
    for payload in payloads:
        task.apply_async(kwargs=payload)
    app.close()


def _celery_nothing(url: str, number: int) -> None:
    from celery import Celery

    app = Celery("peer", broker=url, set_as_current=False)
    with app.producer_or_acquire() as sender, sender.batch():
        for _ in range(number):
            app.send_task("bench.nothing", queue="default", producer=sender)
    app.close()


def _dramatiq(url: str, payloads: list[dict[str, Any]]) -> None:
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    peer = RedisBroker(url=url)
    dramatiq.set_broker(peer)
    actor = dramatiq.actor(_nothing, actor_name="peer_index", broker=peer)
    for payload in payloads:
        actor.send(**payload)
    peer.close()


def _huey(url: str, payloads: list[dict[str, Any]]) -> None:
    from huey import RedisHuey

    peer = RedisHuey("peer", url=url)
    task = peer.task(name="peer_index")(_nothing)
    for payload in payloads:
        task(**payload)
