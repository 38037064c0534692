"""What a worker makes of jobs that wait, fail, hang or kill its processes."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from samplemind.jobs.letters import INBOX
from samplemind.jobs.wire import HEARTBEAT_LIFE_S, heartbeat_key
from tests.worker.processes import Workshop, open_workshop, wait_until

pytestmark = pytest.mark.timeout(90)

MAX_DELIVERIES = 2


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    directory = tmp_path_factory.mktemp("workshop")
    limit = str(MAX_DELIVERIES)
    with open_workshop(directory, SAMPLEMIND_WORKER_MAX_DELIVERIES=limit) as opened:
        opened.start_workers(1, processes=1)
        yield opened


def test_a_soft_time_limit_cancels_the_coroutine_and_the_next_job_meets_a_clean_loop(
    workshop: Workshop,
) -> None:
    workshop.send("probes.look_at_loop", "before")
    workshop.send("probes.sleep_on_loop", "hanging")
    workshop.send("probes.look_at_loop", "after")

    workshop.wait_for("after", "looked", seconds=15)

    events = [entry["event"] for entry in workshop.entries("hanging")]
    assert events == ["entered", "cancelled", "cleaned_up"]
    (before,) = workshop.entries("before")
    (after,) = workshop.entries("after")
    assert after["at"] > workshop.entries("hanging")[-1]["at"]
    assert after["others"] == before["others"]
    assert (after["pid"], after["loop"]) == (before["pid"], before["loop"])


def test_a_job_that_kills_its_process_is_given_up_after_its_deliveries(workshop: Workshop) -> None:
    job_id = workshop.send("probes.kill_own_process", "killer")

    workshop.wait_for("killer", "given_up", seconds=40)
    workshop.wait_until_settled()

    assert [e["delivery"] for e in workshop.entries("killer", "started")] == [1, MAX_DELIVERIES]
    *_, entry = [
        fields for _, fields in workshop.broker.client.xrange(INBOX) if fields["job_id"] == job_id
    ]
    assert (entry["task"], entry["cause"]) == ("probes.kill_own_process", "given_up")
    assert json.loads(entry["body"]) == [["killer"], {}]
    assert workshop.count("killer", "given_up") == 1
    result = json.loads(workshop.broker.client.get(f"sm:celery-task-meta-{job_id}") or "{}")
    assert result["status"] == "FAILURE"
    assert workshop.broker.client.keys("sm:deliveries:*") == []


def test_a_transient_error_is_tried_again_as_often_as_the_job_allows(workshop: Workshop) -> None:
    job_id = workshop.send("probes.fail_transiently", "transient")
    wait_until(lambda: _status(workshop, job_id) == "FAILURE", seconds=20, what="it fails")
    assert [e["attempt"] for e in workshop.entries("transient", "started")] == [1, 2, 3]
    workshop.wait_until_settled()


def test_any_other_error_ends_the_job_at_once(workshop: Workshop) -> None:
    job_id = workshop.send("probes.fail", "permanent")
    wait_until(lambda: _status(workshop, job_id) == "FAILURE", seconds=10, what="it fails")
    workshop.wait_until_settled()
    assert workshop.count("permanent", "started") == 1


def test_a_job_leaves_one_line_in_the_log(workshop: Workshop) -> None:
    job_id = workshop.send("probes.work", "logged", 0.05)
    workshop.wait_for("logged", "ended", seconds=10)
    workshop.wait_until_settled()
    lines = [line for line in workshop.workers[0].log.read_text().splitlines() if job_id in line]
    (line,) = [json.loads(line) for line in lines]
    assert (line["event"], line["job"], line["outcome"]) == (
        "job_ended",
        "probes.work",
        "succeeded",
    )
    assert line["ran_s"] >= 0.05


def test_a_worker_leaves_a_sign_of_life_that_lapses(workshop: Workshop) -> None:
    key = heartbeat_key("index", socket.gethostname(), workshop.workers[0].pid)
    sign = json.loads(workshop.broker.client.get(key) or "{}")
    assert sign["pid"] == workshop.workers[0].pid
    assert sign["queues"] == ["default", "index", "interactive"]
    assert 0 < workshop.broker.client.ttl(key) <= HEARTBEAT_LIFE_S


def test_a_worker_warns_of_a_broker_that_may_evict_jobs_and_of_no_other(
    workshop: Workshop,
) -> None:
    worker = workshop.workers[0]
    assert not worker.logged("broker_may_evict_jobs")
    workshop.broker.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        workshop.broker.client.client_kill_filter(_type="normal", skipme=True)
        wait_until(
            lambda: worker.logged("broker_may_evict_jobs"), seconds=20, what="it warns of it"
        )
    finally:
        workshop.broker.client.config_set("maxmemory-policy", "noeviction")


def _status(workshop: Workshop, job_id: str) -> str | None:
    text = workshop.broker.client.get(f"sm:celery-task-meta-{job_id}")
    return None if text is None else str(json.loads(text)["status"])


def test_the_log_of_the_worker_has_no_unhandled_error(workshop: Workshop) -> None:
    log = Path(workshop.workers[0].log).read_text()
    assert '"level": "critical"' not in log
