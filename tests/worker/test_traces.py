"""One trace from the producer through the workers to the stores, as a receiver gets it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from samplemind.settings import Settings
from tests.audio_files import wav
from tests.worker.processes import REPOSITORY, Workshop, open_workshop, wait_until
from tests.worker.traces import ReceivedSpan, Receiver, receiver

pytestmark = pytest.mark.timeout(150)

SECRET_PATH = "a-name-that-nobody-may-see"
OWNER = "ada@example.org"

SUBMIT = """
import asyncio, sys
from samplemind.jobs.client import Jobs

async def main():
    async with Jobs() as jobs:
        await jobs.submit_batch([sys.argv[1]], owner=sys.argv[2])

asyncio.run(main())
"""
WITHOUT_PACKAGES = """
import sys
sys.modules["opentelemetry"] = None
from worker.main import main
sys.exit(main(["console"]))
"""
PRODUCER, CONSUMER, CLIENT = 4, 5, 3


@dataclass(frozen=True)
class Run:
    workshop: Workshop
    received: Receiver


@pytest.fixture(scope="module")
def run(migrated: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A batch of one file, submitted, analysed and indexed."""
    directory = tmp_path_factory.mktemp("traces")
    library = directory / "library"
    library.mkdir()
    (library / f"{SECRET_PATH}.wav").write_bytes(wav())
    postgres, mongo = migrated.postgres.url, migrated.mongo.url
    assert postgres is not None
    assert mongo is not None
    with (
        receiver() as received,
        open_workshop(
            directory,
            SAMPLEMIND_POSTGRES_URL=postgres.get_secret_value(),
            SAMPLEMIND_MONGO_URL=mongo.get_secret_value(),
            SAMPLEMIND_TRACING_ENDPOINT=received.address,
            SAMPLEMIND_TRACING_HEADERS="x-token=for the receiver",
        ) as workshop,
    ):
        workers = [
            workshop.start_process(role, "--concurrency=1", f"--hostname={role}@traces")
            for role in ("audio", "index")
        ]
        for worker in workers:
            worker.wait_until_ready()
        call(SUBMIT, str(library), OWNER, **workshop.environment)
        wait_until(
            lambda: bool(in_service(received, "job search.index", "samplemind-index")),
            seconds=60,
            what="the file is indexed",
        )
        yield Run(workshop, received)


def call(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done


def in_service(received: Receiver, name: str, service: str) -> list[ReceivedSpan]:
    return [span for span in received.named(name) if span.service == service]


def test_one_trace_goes_from_the_producer_to_the_index(run: Run) -> None:
    (job,) = in_service(run.received, "job batches.analyze", "samplemind-audio")
    assert run.received.ancestors(job)[0].startswith("enqueue batches.analyze")
    assert job.kind == CONSUMER
    assert job.attributes["samplemind.outcome"] == "succeeded"
    assert job.attributes["messaging.destination.name"] == "audio"

    (file,) = run.received.named("analyze file")
    assert run.received.ancestors(file)[:2] == ["batch analyze", "job batches.analyze"]

    drains = in_service(run.received, "job search.index", "samplemind-index")
    followed = [span for span in drains if span.trace_id == job.trace_id]
    assert followed, "the drain that the batch asked for belongs to its trace"
    assert run.received.ancestors(followed[0])[:2] == [
        "enqueue search.index",
        "job batches.analyze",
    ] or run.received.ancestors(followed[0])[:2] == ["enqueue search.index", "batch analyze"]


def test_the_producer_sent_its_spans_before_it_ended(run: Run) -> None:
    sent = [span for span in run.received.spans() if span.service == "samplemind-client"]
    assert {span.kind for span in sent if span.name.startswith("enqueue")} == {PRODUCER}


@pytest.mark.parametrize(
    ("system", "expected"),
    [("postgresql", "SELECT"), ("mongodb", "find"), ("redis", "EVALSHA")],
)
def test_statements_hang_below_the_job_that_makes_them(
    run: Run, system: str, expected: str
) -> None:
    statements = [
        span
        for span in run.received.spans()
        if span.attributes.get("db.system.name") == system
        and any(above.startswith("job ") for above in run.received.ancestors(span))
    ]
    assert expected in {span.attributes["db.operation.name"] for span in statements}
    assert {span.kind for span in statements} == {CLIENT}


def test_a_span_shows_no_value(run: Run) -> None:
    for span in run.received.spans():
        shown = " ".join([span.name, *map(str, span.attributes.values())])
        assert SECRET_PATH not in shown
        assert OWNER not in shown


def test_the_receiver_gets_the_header_that_it_asks_for(run: Run) -> None:
    assert all(headers.get("x-token") == "for the receiver" for headers in run.received.headers)


def test_the_log_of_a_job_names_its_trace(run: Run) -> None:
    (job,) = in_service(run.received, "job batches.analyze", "samplemind-audio")
    log = run.workshop.workers[0].log.read_text()
    (line,) = [line for line in log.splitlines() if job.attributes["messaging.message.id"] in line]
    assert f'"trace_id": "{job.trace_id}"' in line


def test_a_process_of_the_pool_sends_what_it_has_when_it_ends(run: Run, tmp_path: Path) -> None:
    before = len(run.received.named("job probes.nothing"))
    worker = run.workshop.start_process(
        "maintenance",
        "--include=tests.worker.probes",
        "--concurrency=1",
        "--queues=default",
        "--hostname=maintenance@last",
    )
    worker.wait_until_ready()
    run.workshop.workers[1].signal(signal.SIGTERM)
    run.workshop.workers[1].wait(30)
    run.workshop.send_named("probes.nothing", name="last")
    run.workshop.wait_until_settled()
    worker.signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert len(run.received.named("job probes.nothing")) == before + 1


def test_a_receiver_that_is_away_stops_nothing(run: Run) -> None:
    done = call(
        "from samplemind.settings import load_settings\n"
        "from samplemind import tracing\n"
        "tracing.configure_tracing(load_settings().tracing, 'p')\n"
        "with tracing.span('step'): print('worked')\n",
        SAMPLEMIND_TRACING_ENDPOINT="http://127.0.0.1:1",
    )
    assert done.stdout == "worked\n"


def test_what_sends_traces_is_not_loaded_while_they_are_off() -> None:
    done = call(
        "import sys, samplemind.jobs.client\n"
        "from samplemind.tracing import span\n"
        "with span('step'): pass\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
        "import worker.app, tasks.batches\n"
        "from samplemind.connections.redis_spans import client_class\n"
        # redis-py loads the rest of OpenTelemetry by itself, where it is installed.
        "print([name for name in sys.modules if name.startswith("
        "('opentelemetry.exporter', 'opentelemetry.sdk.trace'))])\n"
        "print(client_class().__module__)"
    )
    assert done.stdout.splitlines() == ["[]", "[]", "redis.client"]


def test_traces_that_are_asked_for_without_their_packages_are_refused_with_the_mend() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            WITHOUT_PACKAGES,
        ],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "SAMPLEMIND_TRACING_ENDPOINT": "http://collector:4318",
            "SAMPLEMIND_POSTGRES_URL": "postgresql://nobody@127.0.0.1:1/none",
            "SAMPLEMIND_MONGO_URL": "mongodb://127.0.0.1:1/",
            "SAMPLEMIND_BROKER_URL": "redis://127.0.0.1:1/0",
            "SAMPLEMIND_CACHE_URL": "redis://127.0.0.1:1/1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "pip install 'samplemind-jobs[tracing]'" in done.stderr
