"""What the exporter says of real stores, and what it says when one is away."""

import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import insert

from samplemind.cache.rate_limit import Limit, RateLimitCache
from samplemind.connections.resources import Connections
from samplemind.documents.batch_item import BatchItem, ItemState
from samplemind.documents.batch_job import BatchJob, BatchState
from samplemind.endpoints import Store
from samplemind.ids import new_id
from samplemind.jobs.client import SyncJobs
from samplemind.jobs.payloads import RefreshVocabulary
from samplemind.models.dead_letter import DeadLetter
from samplemind.search.dirty import mark_dirty
from samplemind.settings import MetricsSettings, Settings
from worker.metrics.catalogue import METRICS, Source
from worker.metrics.exporter import Exporter, areas

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)

Figure = Callable[..., float]


def read(page: bytes) -> Figure:
    samples = [
        sample
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    ]

    def figure(name: str, **labels: str) -> float:
        (value,) = [s.value for s in samples if s.name == name and s.labels == labels]
        return value

    return figure


async def take(connections: Connections) -> Figure:
    exporter = Exporter(connections.settings)
    await exporter.read_once(connections)
    return read(exporter.render())


async def test_what_waits_and_what_died_is_told(connections: Connections) -> None:
    with SyncJobs(connections.settings) as jobs:
        jobs.enqueue_many([RefreshVocabulary() for _ in range(3)])
    await mark_dirty(connections.broker, [new_id(), new_id()])
    async with connections.postgres.session() as session:
        await session.execute(insert(DeadLetter), [letter("timed_out"), letter("failed")])
    figure = await take(connections)
    assert figure("samplemind_queue_messages", queue="maintenance") == 3
    assert 0 < figure("samplemind_queue_oldest_seconds", queue="maintenance") < 60
    assert figure("samplemind_queue_oldest_seconds", queue="audio") == 0
    assert figure("samplemind_index_waiting_files") == 2
    assert figure("samplemind_dead_letters_open", cause="timed_out") == 1
    assert figure("samplemind_dead_letters_open", cause="given_up") == 0


async def test_open_batches_are_counted_and_ended_ones_are_not(connections: Connections) -> None:
    await connections.documents()
    for state in (BatchState.RUNNING, BatchState.FINISHED):
        job = BatchJob(id=new_id(), total=2, chunk_size=2, state=state, created_at=NOW)
        for seq, item in enumerate((ItemState.DONE, ItemState.CLAIMED)):
            await BatchItem(batch_id=job.id, seq=seq, path=f"/{seq}", state=item).insert()
        await job.insert()
    figure = await take(connections)
    assert figure("samplemind_batches", state="running") == 1
    assert figure("samplemind_batch_items", state="done") == 1
    assert figure("samplemind_batch_items", state="claimed") == 1
    assert figure("samplemind_batch_idle_seconds") == 0


async def test_a_refusal_by_a_rate_limit_is_told(connections: Connections) -> None:
    limits = RateLimitCache(connections.cached.cache)
    one = Limit(1, window=NOW - NOW.replace(minute=0, hour=11))
    assert [(await limits.hit("a", one)).allowed for _ in range(3)] == [True, False, False]
    await connections.cached.cache.flush_counts()
    figure = await take(connections)
    assert figure("samplemind_cache_events_total", event="rate_limited") == 2


async def test_every_store_and_every_area_is_told(connections: Connections) -> None:
    figure = await take(connections)
    for store in Store:
        assert figure("samplemind_store_up", store=store.value) == 1
    assert figure("samplemind_postgres_connections_limit") > 0
    assert figure("samplemind_redis_memory_bytes", store="broker") > 0
    assert figure("samplemind_disk_free_bytes", place="home") > 0
    assert figure("samplemind_embedded_server_up", store="postgres") == 1
    for area in areas():
        assert figure("samplemind_figures_failures_total", area=area.name) == 0
        assert figure("samplemind_figures_renewed_timestamp_seconds", area=area.name) > 0


async def test_a_store_that_is_away_keeps_only_its_own_figures(connections: Connections) -> None:
    settings = connections.settings
    broker = settings.broker.model_copy(update={"url": SecretStr("redis://127.0.0.1:1/0")})
    exporter = Exporter(settings)
    await exporter.read_once(connections)
    lost = settings.model_copy(update={"broker": broker})
    before = read(exporter.render())
    async with Connections(lost) as without_broker:
        await exporter.read_once(without_broker)
    after = read(exporter.render())
    assert after("samplemind_store_up", store="broker") == 0
    assert after("samplemind_store_up", store="mongo") == 1
    age = "samplemind_figures_renewed_timestamp_seconds"
    assert after(age, area="queues") == before(age, area="queues")
    assert after(age, area="postgres") > before(age, area="postgres")
    assert after("samplemind_figures_failures_total", area="queues") == 1
    assert after("samplemind_queue_messages", queue="audio") == 0


async def test_only_what_is_in_the_catalogue_is_served(connections: Connections) -> None:
    exporter = Exporter(connections.settings)
    await exporter.read_once(connections)
    known = {metric.name: metric for metric in METRICS if metric.source is Source.CONSOLE}
    for family in text_string_to_metric_families(exporter.render().decode()):
        for sample in family.samples:
            assert set(sample.labels) == set(known[sample.name].labels)


async def test_the_page_asks_for_the_token_and_the_health_for_nothing(migrated: Settings) -> None:
    given = migrated.model_copy(
        update={"metrics": MetricsSettings(token=SecretStr("secret"), pace_s=600)}
    )
    server = Exporter(given).start()
    try:
        assert fetch(f"{server.address}/healthcheck") == 200
        assert fetch(f"{server.address}/metrics") == 401
        assert fetch(f"{server.address}/metrics", "wrong") == 401
        assert fetch(f"{server.address}/metrics", "secret") == 200
        assert fetch(f"{server.address}/") == 404
    finally:
        server.close()


def letter(code: str) -> dict[str, object]:
    return {
        "id": uuid4(),
        "job_id": str(uuid4()),
        "task": "probes.fail",
        "body": "{}",
        "schema_version": 1,
        "code": code,
        "error": "e",
        "attempts": 1,
        "worker": "w",
        "first_failed_at": NOW,
        "last_failed_at": NOW,
    }


def fetch(address: str, token: str | None = None) -> int:
    request = urllib.request.Request(address)  # noqa: S310 - our own address
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
