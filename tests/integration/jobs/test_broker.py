"""Jobs in the broker: sent once, found by their keys, delayed, cancelled."""

import asyncio
import json
import time
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import redis

from samplemind.connections.resources import Connections
from samplemind.errors import InvalidInputError, JobFailedError, NotFoundError
from samplemind.ids import new_id
from samplemind.jobs.broker import JobBroker, Message
from samplemind.jobs.client import Jobs, SyncJobs
from samplemind.jobs.envelope import (
    SCHEMA_HEADER,
    SENT_HEADER,
    TRACKED_HEADER,
    Priority,
    encode_body,
    encode_message,
    list_key,
)
from samplemind.jobs.payloads import CreateBackup, IndexFiles, VerifyBackup
from samplemind.jobs.publishing import producer
from samplemind.jobs.state import (
    BEGIN,
    DELAYED,
    END,
    RELEASE,
    UNIQUE_PREFIX,
    JobArea,
    JobState,
    area_key,
    job_key,
)


@pytest.fixture
def server(connections: Connections) -> Iterator[redis.Redis]:
    url = connections.settings.broker.url
    assert url is not None
    with redis.Redis.from_url(url.get_secret_value()) as client:
        yield client


@pytest.fixture
def jobs(connections: Connections) -> Iterator[SyncJobs]:
    with SyncJobs(connections.settings) as opened:
        yield opened


def payload() -> IndexFiles:
    return IndexFiles(ids=(new_id(),))


def begin(
    server: redis.Redis,
    job_id: object,
    *,
    task: str = "search.index_files",
    redelivered: int = 0,
) -> str:
    verdict = server.eval(BEGIN, 0, str(job_id), task, "w", redelivered)
    assert isinstance(verdict, bytes)
    return verdict.decode()


def end(server: redis.Redis, job_id: object, state: JobState, result: str = "") -> None:
    server.eval(END, 0, str(job_id), "search.index_files", state.value, "why", result, "inbox")


def test_the_envelope_is_the_one_that_kombu_makes(
    connections: Connections, server: redis.Redis
) -> None:
    body = {"ids": ["ä"]}
    app = producer(connections.settings)
    app.send_task(
        "search.index_files",
        kwargs=body,
        task_id="T",
        queue="index",
        priority=3,
        headers={SCHEMA_HEADER: 1, TRACKED_HEADER: True, SENT_HEADER: 0.0},
    )
    app.close()
    (theirs,) = map(json.loads, server.lrange(list_key("index", Priority.LOW), 0, -1))
    ours = json.loads(
        encode_message(
            "search.index_files",
            encode_body(body),
            job_id="T",
            queue="index",
            schema_version=1,
            priority=Priority.LOW,
        )
    )

    assert abs(ours["headers"][SENT_HEADER] - time.time()) < 5
    assert json.loads(b64decode(ours.pop("body"))) == json.loads(b64decode(theirs.pop("body")))
    for message in (ours, theirs):
        # Who sent it and when, what logs show of it, and where a reply goes: nobody waits for one.
        for name in ("origin", "kwargsrepr", SENT_HEADER):
            assert name in message["headers"]
            del message["headers"][name]
        del message["properties"]["delivery_tag"], message["properties"]["reply_to"]
    assert ours == theirs


def test_a_job_is_sent_and_seen(jobs: SyncJobs, server: redis.Redis) -> None:
    sent = payload()
    job_id = jobs.enqueue(sent, priority=9, expires=timedelta(hours=1))

    (message,) = map(json.loads, server.lrange(list_key("index", Priority.LOWEST), 0, -1))
    assert message["headers"]["id"] == str(job_id)
    assert json.loads(b64decode(message["body"]))[1] == sent.model_dump(mode="json")
    left = datetime.fromisoformat(message["headers"]["expires"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    status = jobs.status(job_id)
    assert (status.state, status.task, status.attempts) == (JobState.WAITING, sent.job_name, 0)
    assert jobs.newest(limit=5) == [status]
    with pytest.raises(NotFoundError):
        jobs.status(uuid4())


def test_a_running_backup_is_listed_however_many_jobs_came_after_it(
    jobs: SyncJobs, server: redis.Redis
) -> None:
    backup = jobs.enqueue(CreateBackup(kind="logical", reason="the night"))
    begin(server, backup, task="backups.create")
    by_beat = str(uuid4())  # a message that beat sent: the worker sees it first
    begin(server, by_beat, task="backups.verify")
    later = [jobs.enqueue(VerifyBackup(backup_id=f"b{number}")) for number in range(9)]
    for job_id in later:
        server.eval(END, 0, str(job_id), "backups.verify", "succeeded", "", "", "inbox")
    jobs.enqueue_many(payload() for _ in range(5_200))

    found = [job.id for job in jobs.newest_of(JobArea.BACKUPS, limit=4)]
    assert set(found[:2]) == {by_beat, str(backup)}  # under way, so before all that ended
    assert set(found[2:]) <= set(map(str, later))
    assert len(found) == 4
    assert jobs.newest_of(JobArea.MAINTENANCE, limit=4) == []


def test_an_areas_list_forgets_what_no_state_is_kept_of(
    connections: Connections, jobs: SyncJobs, server: redis.Redis
) -> None:
    kept = jobs.enqueue(CreateBackup(kind="logical", reason="the night"))
    server.zadd(area_key(JobArea.BACKUPS), {"long ago": 1})
    broker = JobBroker(connections.settings.broker)
    broker.forget_old()
    broker.close()
    assert server.zrange(area_key(JobArea.BACKUPS), 0, -1) == [str(kept).encode()]


def test_many_jobs_are_sent_in_order_with_an_id_each(jobs: SyncJobs, server: redis.Redis) -> None:
    sent = [payload() for _ in range(1201)]
    ids = jobs.enqueue_many(sent)
    messages = [json.loads(text) for text in reversed(server.lrange("sm:index", 0, -1))]
    assert [message["headers"]["id"] for message in messages] == [str(job_id) for job_id in ids]
    assert json.loads(b64decode(messages[-1]["body"]))[1] == sent[-1].model_dump(mode="json")


@pytest.mark.parametrize(
    "wrong",
    [
        {"priority": 10},
        {"priority": -1},
        {"delay": timedelta(seconds=-1)},
        {"unique_for": timedelta(days=2)},
        {"idempotency_key": ""},
        {"idempotency_key": "x" * 501},
        {"expires": datetime(2030, 1, 1)},  # noqa: DTZ001
    ],
)
def test_what_is_out_of_range_is_refused_before_anything_is_sent(
    jobs: SyncJobs, server: redis.Redis, wrong: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInputError):
        jobs.enqueue(payload(), **wrong)
    assert server.dbsize() == 0


def test_one_of_many_that_enqueue_with_one_key_at_once_sends(
    connections: Connections, server: redis.Redis
) -> None:
    def send(_: int) -> object:
        with SyncJobs(connections.settings) as own:
            return own.enqueue(payload(), idempotency_key="same")

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(send, range(24)))
    assert len(ids) == 1
    assert server.llen("sm:index") == 1


@pytest.mark.parametrize(
    ("ended", "holds"),
    [
        (JobState.SUCCEEDED, True),
        (JobState.FAILED, False),
        (JobState.CANCELLED, False),
        (JobState.DEAD, False),
    ],
)
def test_a_key_holds_while_its_job_is_under_way_and_after_it_succeeded(
    jobs: SyncJobs, server: redis.Redis, ended: JobState, holds: bool
) -> None:
    first = jobs.enqueue(payload(), idempotency_key="k")
    assert jobs.enqueue(payload(), idempotency_key="k") == first
    assert begin(server, first) == "run"
    assert jobs.enqueue(payload(), idempotency_key="k") == first
    end(server, first, JobState.RETRYING)
    assert jobs.enqueue(payload(), idempotency_key="k") == first
    begin(server, first)
    end(server, first, ended)
    assert (jobs.enqueue(payload(), idempotency_key="k") == first) is holds


def test_a_key_is_free_when_its_time_is_over_or_its_job_is_forgotten(
    jobs: SyncJobs, server: redis.Redis
) -> None:
    first = jobs.enqueue(payload(), idempotency_key="k", unique_for=timedelta(0))
    begin(server, first)
    end(server, first, JobState.SUCCEEDED)
    second = jobs.enqueue(payload(), idempotency_key="k")
    assert second != first

    server.delete(job_key(str(second)))
    assert jobs.enqueue(payload(), idempotency_key="k") != second
    (key,) = server.keys(f"{UNIQUE_PREFIX}*")
    assert server.ttl(key) > 0


def test_a_delayed_job_waits_outside_the_queue_until_its_time(
    jobs: SyncJobs, server: redis.Redis
) -> None:
    job_id = jobs.enqueue(payload(), delay=timedelta(hours=1))
    server.eval(RELEASE, 0, "10")
    assert server.llen("sm:index") == 0

    server.zadd(DELAYED, {str(job_id): 1})  # its time has come

    with ThreadPoolExecutor(4) as pool:
        moved = list(pool.map(lambda _: server.eval(RELEASE, 0, "10"), range(8)))
    assert sum(map(int, moved)) == 1  # type: ignore[arg-type]
    (message,) = map(json.loads, server.lrange("sm:index", 0, -1))
    assert message["headers"]["id"] == str(job_id)


def test_a_cancelled_job_is_refused_wherever_its_message_is(
    jobs: SyncJobs, server: redis.Redis
) -> None:
    waiting = jobs.enqueue(payload())
    delayed = jobs.enqueue(payload(), delay=timedelta(hours=1))
    foreign = uuid4()  # sent by a plain Celery client and not yet seen by any worker
    for job_id in (waiting, delayed, foreign):
        assert jobs.cancel(job_id) is JobState.CANCELLED
        assert begin(server, job_id) == "cancelled"
        assert begin(server, job_id, redelivered=1) == "cancelled"
    assert server.zcard(DELAYED) == 0


def test_a_running_job_that_was_told_to_stop_does_not_start_again_after_a_kill(
    jobs: SyncJobs, server: redis.Redis
) -> None:
    job_id = jobs.enqueue(payload())
    begin(server, job_id)
    assert jobs.cancel(job_id) is JobState.RUNNING
    assert jobs.status(job_id).cancel_requested

    assert begin(server, job_id, redelivered=1) == "cancelled"  # its worker was killed
    assert jobs.cancel(job_id) is JobState.CANCELLED


def test_a_job_that_ended_before_its_message_was_acknowledged_does_not_run_again(
    jobs: SyncJobs, server: redis.Redis
) -> None:
    job_id = jobs.enqueue(payload())
    begin(server, job_id)
    end(server, job_id, JobState.SUCCEEDED, '{"done": 1}')
    assert begin(server, job_id, redelivered=1) == "succeeded"
    assert jobs.result(job_id, timeout=0) == {"done": 1}


async def test_a_result_is_waited_for_and_a_failure_is_told(
    connections: Connections, server: redis.Redis
) -> None:
    async with Jobs(connections.settings) as jobs:
        job_id = await jobs.enqueue(payload())
        with pytest.raises(TimeoutError):
            await jobs.result(job_id, timeout=0.05)
        waiting = asyncio.create_task(jobs.result(job_id, timeout=20))
        await asyncio.to_thread(begin, server, job_id)
        await asyncio.to_thread(end, server, job_id, JobState.SUCCEEDED, "[1]")
        assert await waiting == [1]
        failed = await jobs.enqueue(payload())
        await asyncio.to_thread(end, server, failed, JobState.DEAD)
        with pytest.raises(JobFailedError, match="dead: why"):
            await jobs.result(failed, timeout=1)


def test_a_call_whose_answer_was_lost_may_be_repeated(
    connections: Connections, server: redis.Redis
) -> None:
    broker = JobBroker(connections.settings.broker)
    message = Message("one", "search.index_files", "sm:index", "{}")
    assert [broker.send([message]), broker.send([message])] == [["one"], ["one"]]
    broker.close()
    assert server.llen("sm:index") == 1
