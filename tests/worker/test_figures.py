"""What a real worker counts, and what its log says of the same jobs."""

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from samplemind.jobs.client import SyncJobs
from samplemind.jobs.payloads import RefreshVocabulary
from samplemind.jobs.wire import heartbeat_key
from samplemind.settings import BrokerSettings, Settings
from tests.worker.processes import SHORT_LEASES, Workshop, open_workshop, wait_until
from worker.health import Health

pytestmark = pytest.mark.timeout(120)

TOKEN = "a token of the test"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with open_workshop(
        tmp_path_factory.mktemp("figures"),
        SAMPLEMIND_METRICS_TOKEN=TOKEN,
        SAMPLEMIND_WORKER_MAX_DELIVERIES="2",
        **SHORT_LEASES,
    ) as opened:
        opened.start_workers(1)
        yield opened


def address(workshop: Workshop) -> str:
    pid, host = workshop.workers[0].pid, os.uname().nodename
    found: list[str] = []

    def is_told() -> bool:
        sign = json.loads(workshop.broker.client.get(heartbeat_key("index", host, pid)) or "{}")
        found[:] = [sign["address"]] if sign.get("address") else []
        return bool(found)

    wait_until(is_told, seconds=20, what="the worker tells its address")
    return f"{found[0]}/metrics"


def scrape(workshop: Workshop, token: str = TOKEN) -> str:
    request = urllib.request.Request(address(workshop))  # noqa: S310 - our own address
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        return str(response.read().decode())


def figure(workshop: Workshop, name: str, **labels: str) -> float:
    (value,) = [
        sample.value
        for family in text_string_to_metric_families(scrape(workshop))
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return value


def runs(workshop: Workshop, task: str, outcome: str) -> float:
    return figure(workshop, "samplemind_jobs_total", task=task, outcome=outcome)


def lines_of(workshop: Workshop, job_id: str) -> list[dict[str, Any]]:
    text = workshop.workers[0].log.read_text()
    return [json.loads(line) for line in text.splitlines() if job_id in line]


def test_runs_are_counted_by_job_and_outcome(workshop: Workshop) -> None:
    for number in range(7):
        workshop.send("probes.nothing", f"n{number}")
    workshop.send("probes.fail", "f")
    workshop.send("probes.fail_transiently", "t")
    wait_until(
        lambda: runs(workshop, "probes.fail_transiently", "failed") == 1,
        seconds=30,
        what="the retries are exhausted",
    )
    workshop.wait_until_settled()
    assert runs(workshop, "probes.nothing", "succeeded") == 7
    assert runs(workshop, "probes.fail", "failed") == 1
    assert runs(workshop, "probes.fail_transiently", "retried") == 2
    name = "samplemind_job_run_seconds_count"
    assert figure(workshop, name, task="probes.nothing") == 7
    assert figure(workshop, name, task="probes.fail_transiently") == 3


def test_the_count_outlives_the_processes_that_counted(workshop: Workshop) -> None:
    before = runs(workshop, "probes.nothing", "succeeded")
    workshop.send("probes.nothing", "before")
    wait_until(
        lambda: runs(workshop, "probes.nothing", "succeeded") == before + 1,
        seconds=10,
        what="it is counted",
    )
    starts = figure(workshop, "samplemind_worker_process_starts_total")
    old = workshop.workers[0].children()
    for child in old:
        child.send_signal(signal.SIGKILL)
    psutil.wait_procs(old, timeout=10)
    wait_until(
        lambda: figure(workshop, "samplemind_worker_process_starts_total") == starts + 2,
        seconds=30,
        what="others took their places",
    )
    workshop.send("probes.nothing", "after")
    wait_until(
        lambda: runs(workshop, "probes.nothing", "succeeded") == before + 2,
        seconds=10,
        what="the next is counted on top",
    )


def test_a_job_that_kills_its_process_is_counted_by_who_is_left(workshop: Workshop) -> None:
    task = "probes.kill_own_process"
    job_id = workshop.send_named(task, name="killer")
    wait_until(lambda: runs(workshop, task, "failed") == 1, seconds=60, what="it is given up")
    assert runs(workshop, task, "process_lost") == workshop.count("killer", "started")
    assert figure(workshop, "samplemind_job_redeliveries_total", task=task) >= 2
    lines = ends(workshop, job_id)
    outcomes = [line["outcome"] for line in lines]
    assert (outcomes.count("process_lost"), outcomes.count("failed")) == (2, 1)
    # The first start ended a wait; those after it began with a run that was lost.
    first, *later = [line for line in lines if line["outcome"] == "process_lost"]
    assert 0 <= first["waited_s"] < 60
    assert all(line["waited_s"] is None for line in later)
    assert all(0 <= line["ran_s"] < 60 for line in lines)
    assert {line.get("job") for line in lines_of(workshop, job_id)} == {task}


def test_a_job_killed_for_time_is_counted(workshop: Workshop) -> None:
    job_id = workshop.send_named("probes.overrun", name="overrun")
    wait_until(
        lambda: runs(workshop, "probes.overrun", "timed_out") == 1, seconds=30, what="it is killed"
    )
    wait_until(lambda: len(ends(workshop, job_id)) == 1, seconds=10, what="its line is written")
    (line,) = ends(workshop, job_id)
    assert line["waited_s"] >= 0
    assert 1 <= line["ran_s"] < 60


def test_a_wait_is_what_was_not_asked_for(workshop: Workshop) -> None:
    # The index worker does not take the queue of maintenance, so a job of that only waits there.
    settings = Settings(broker=BrokerSettings(url=SecretStr(workshop.broker.url)))
    with SyncJobs(settings) as jobs:
        jobs.enqueue(RefreshVocabulary(), delay=timedelta(seconds=1))
    wait_until(lambda: workshop.broker.waiting("maintenance") == 1, seconds=20, what="it is due")
    (message,) = workshop.broker.client.lrange("sm:maintenance", 0, -1)
    enqueued = workshop.broker.client.hget(
        f"sm:job:{json.loads(message)['headers']['id']}", "enqueued"
    )
    sent = json.loads(message)["headers"]["samplemind_sent"]
    assert 0.5 < sent - int(enqueued or 0) / 1000 < 1.5
    workshop.broker.client.delete("sm:maintenance")


def test_every_line_of_a_job_names_it_and_one_tells_its_timings(workshop: Workshop) -> None:
    job_id = workshop.send_named("probes.fail_transiently", name="told")
    wait_until(
        lambda: len(ends(workshop, job_id)) == 3, seconds=30, what="its three attempts have ended"
    )
    # The next attempt may end in another process before the line of this one is written.
    found = sorted(ends(workshop, job_id), key=lambda line: line["attempt"])
    assert [line["attempt"] for line in found] == [1, 2, 3]
    assert [line["outcome"] for line in found] == ["retried", "retried", "failed"]
    for line in found:
        assert line["job"] == "probes.fail_transiently"
        assert line["waited_s"] >= 0
        assert line["ran_s"] >= 0


def ends(workshop: Workshop, job_id: str) -> list[dict[str, Any]]:
    return [line for line in lines_of(workshop, job_id) if line.get("event") == "job_ended"]


def test_the_batch_is_named_on_every_line_of_its_job(workshop: Workshop) -> None:
    batch_id = str(uuid4())
    job_id = workshop.send_named("probes.in_batch", batch_id=batch_id)
    wait_until(lambda: len(ends(workshop, job_id)) == 1, seconds=10, what="it has ended")
    lines = lines_of(workshop, job_id)
    assert {line["event"] for line in lines} >= {"on_the_loop", "in_the_job", "job_ended"}
    assert {line.get("batch_id") for line in lines} == {batch_id}


def test_figures_are_for_who_has_the_token(workshop: Workshop) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        scrape(workshop, token="another")


def test_a_process_that_counts_nothing_has_no_figures_to_give(tmp_path: Path) -> None:
    health = Health(tmp_path / "health.json", "127.0.0.1", 0)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{health.address}/metrics", timeout=5)  # noqa: S310
