"""What producers may rely on, with a real worker at the other end."""

import json
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from samplemind.errors import JobFailedError
from samplemind.jobs.client import SyncJobs
from samplemind.jobs.letters import INBOX
from samplemind.jobs.payloads import Payload
from samplemind.jobs.state import JobState
from samplemind.settings import BrokerSettings, Settings
from tests.worker.processes import SHORT_LEASES, Workshop, open_workshop, wait_until

pytestmark = pytest.mark.timeout(180)

GRACE_S = 2


class Answer(Payload):
    job_name = "probes.answer"
    name: str


class Refuse(Payload):
    job_name = "probes.refuse"
    name: str


class Loop(Payload):
    job_name = "probes.loop"
    name: str


class WaitOnLoop(Payload):
    job_name = "probes.wait_on_loop"
    name: str


class Stubborn(Payload):
    job_name = "probes.stubborn"
    name: str


class Overrun(Payload):
    job_name = "probes.overrun"
    name: str


class FailTransiently(Payload):
    job_name = "probes.fail_transiently"
    name: str


class Work(Payload):
    job_name = "probes.work"
    name: str
    seconds: float


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    directory = tmp_path_factory.mktemp("contract")
    grace = str(GRACE_S)
    with open_workshop(directory, SAMPLEMIND_WORKER_CANCEL_GRACE_S=grace, **SHORT_LEASES) as opened:
        opened.start_workers(1, processes=2)
        yield opened


@pytest.fixture
def jobs(workshop: Workshop, tmp_path: Path) -> Iterator[SyncJobs]:
    broker = BrokerSettings(url=SecretStr(workshop.broker.url))
    with SyncJobs(Settings(home=tmp_path, broker=broker)) as opened:
        yield opened


def letters(workshop: Workshop) -> list[dict[str, Any]]:
    return [fields for _, fields in workshop.broker.client.xrange(INBOX)]


def letter_of(workshop: Workshop, job_id: object) -> dict[str, Any]:
    def found() -> list[dict[str, Any]]:
        return [letter for letter in letters(workshop) if letter["job_id"] == str(job_id)]

    wait_until(lambda: bool(found()), seconds=20, what=f"a letter about {job_id}")
    (letter,) = found()
    return letter


def wait_for_state(jobs: SyncJobs, job_id: UUID, state: JobState, seconds: float = 20) -> None:
    wait_until(
        lambda: jobs.status(job_id).state is state, seconds=seconds, what=f"it is {state.value}"
    )


def test_a_job_tells_its_progress_and_its_result(workshop: Workshop, jobs: SyncJobs) -> None:
    job_id = jobs.enqueue(Answer(name="answer"))
    assert jobs.result(job_id, timeout=20) == {"answer": "answer"}
    assert jobs.progress(job_id) == {"done": 3, "total": 4}
    status = jobs.status(job_id)
    assert (status.state, status.attempts) == (JobState.SUCCEEDED, 1)
    assert status.enqueued_at
    assert status.started_at
    assert status.ended_at
    assert status.enqueued_at <= status.started_at <= status.ended_at
    assert status.worker


def test_many_are_run_once_each(workshop: Workshop, jobs: SyncJobs) -> None:
    ids = jobs.enqueue_many([Answer(name=f"many{number}") for number in range(60)])
    for job_id in ids:
        jobs.result(job_id, timeout=30)
    assert [workshop.count(f"many{number}", "started") for number in range(60)] == [1] * 60


def test_a_delayed_job_starts_after_its_time(workshop: Workshop, jobs: SyncJobs) -> None:
    job_id = jobs.enqueue(Answer(name="delayed"), delay=timedelta(seconds=1.5))
    jobs.result(job_id, timeout=20)
    status = jobs.status(job_id)
    assert status.started_at
    assert status.enqueued_at
    assert status.started_at - status.enqueued_at >= timedelta(seconds=1.5)


def test_a_job_that_expired_does_not_start(workshop: Workshop, jobs: SyncJobs) -> None:
    job_id = jobs.enqueue(Answer(name="expired"), expires=timedelta(seconds=-1))
    wait_for_state(jobs, job_id, JobState.CANCELLED)
    assert workshop.entries("expired") == []


def test_the_answer_of_a_job_may_be_an_error(workshop: Workshop, jobs: SyncJobs) -> None:
    job_id = jobs.enqueue(Refuse(name="refused"))
    with pytest.raises(JobFailedError, match="NotFoundError: refused is not there"):
        jobs.result(job_id, timeout=20)
    letter = letter_of(workshop, job_id)
    assert (letter["cause"], letter["attempts"]) == ("failed", "1")
    assert "probes.py" in letter["traceback"]
    assert json.loads(letter["body"]) == [[], {"name": "refused"}]


def test_exhausted_retries_leave_one_letter(workshop: Workshop, jobs: SyncJobs) -> None:
    job_id = jobs.enqueue(FailTransiently(name="transient"))
    wait_for_state(jobs, job_id, JobState.DEAD)
    letter = letter_of(workshop, job_id)
    assert (letter["cause"], letter["attempts"]) == ("retries_exhausted", "3")
    assert jobs.status(job_id).attempts == 3


def test_a_job_that_is_killed_for_time_is_a_dead_letter(workshop: Workshop, jobs: SyncJobs) -> None:
    job_id = jobs.enqueue(Overrun(name="overrun"))
    wait_for_state(jobs, job_id, JobState.DEAD)
    assert letter_of(workshop, job_id)["cause"] == "timed_out"


def test_a_payload_that_does_not_fit_is_a_dead_letter_and_no_crash(workshop: Workshop) -> None:
    job_id = workshop.send("search.index_files", "positional")
    letter = letter_of(workshop, job_id)
    assert letter["cause"] == "invalid_payload"
    assert "named arguments" in letter["error"]


def test_a_job_that_nobody_knows_is_a_dead_letter(workshop: Workshop, jobs: SyncJobs) -> None:
    job_id = workshop.send("nobody.knows", "x", 1)
    letter = letter_of(workshop, job_id)
    assert jobs.status(job_id).state is JobState.DEAD
    assert (letter["cause"], letter["task"]) == ("unknown_task", "nobody.knows")
    assert json.loads(letter["body"]) == [["x", 1], {}]


@pytest.mark.parametrize(
    "text",
    [
        "garbage \x00",
        "[]",
        "{}",
        "[" * 100_000,
        '{"body": "e30=", "headers": {}, "properties": {}}',
        json.dumps(
            {
                "body": "!!!",
                "content-type": "application/x-python-serialize",
                "content-encoding": "binary",
                "headers": {"id": "pickle", "task": "probes.answer"},
                "properties": {
                    "delivery_tag": "t",
                    "delivery_info": {"exchange": "", "routing_key": "default"},
                },
            }
        ),
    ],
    ids=["text", "list", "empty", "deep", "bare", "pickle"],
)
def test_what_cannot_be_read_is_a_dead_letter_and_the_worker_goes_on(
    workshop: Workshop, jobs: SyncJobs, text: str
) -> None:
    before = len(letters(workshop))
    workshop.broker.client.lpush("sm:default", text)
    wait_until(lambda: len(letters(workshop)) == before + 1, seconds=20, what="it is a dead letter")
    assert letters(workshop)[-1]["cause"] == "undecodable"
    after = jobs.enqueue(Answer(name=f"after {uuid4()}"))
    jobs.result(after, timeout=20)


def test_a_waiting_job_that_is_cancelled_never_starts(workshop: Workshop, jobs: SyncJobs) -> None:
    workshop.workers[0].signal(signal.SIGSTOP)
    job_id = jobs.enqueue(Answer(name="unwanted"))
    assert jobs.cancel(job_id) is JobState.CANCELLED
    workshop.workers[0].signal(signal.SIGCONT)
    workshop.wait_until_settled(seconds=20)
    assert workshop.entries("unwanted") == []
    assert jobs.status(job_id).state is JobState.CANCELLED


@pytest.mark.parametrize(
    ("make", "begun", "ended"),
    [
        (Loop, "started", "ended"),
        (WaitOnLoop, "entered", "cleaned_up"),
    ],
)
def test_a_running_job_that_is_cancelled_ends_in_good_order(
    workshop: Workshop, jobs: SyncJobs, make: Callable[..., Payload], begun: str, ended: str
) -> None:
    name = f"cancelled {begun}"
    children = {child.pid for child in workshop.workers[0].children()}
    job_id = jobs.enqueue(make(name=name))
    workshop.wait_for(name, begun, seconds=20)
    assert jobs.cancel(job_id) is JobState.RUNNING
    wait_for_state(jobs, job_id, JobState.CANCELLED)
    workshop.wait_until_settled()
    assert (workshop.count(name, begun), workshop.count(name, ended)) == (1, 1)
    assert workshop.entries(name)[0]["pid"] in children
    assert {child.pid for child in workshop.workers[0].children()} == children


def test_a_job_that_does_not_stop_is_stopped_by_force_and_not_run_again(
    workshop: Workshop, jobs: SyncJobs
) -> None:
    job_id = jobs.enqueue(Stubborn(name="stubborn"))
    workshop.wait_for("stubborn", "started", seconds=20)
    jobs.cancel(job_id)
    wait_for_state(jobs, job_id, JobState.CANCELLED)
    workshop.wait_until_settled(seconds=30)
    assert workshop.count("stubborn", "started") == 1
    assert workshop.count("stubborn", "ended") == 0


def test_a_key_holds_across_the_death_of_its_worker_and_is_free_in_the_end(
    workshop: Workshop, jobs: SyncJobs
) -> None:
    first = jobs.enqueue(Work(name="kept", seconds=1), idempotency_key="kept")
    workshop.wait_for("kept", "started", seconds=20)
    workshop.workers[0].kill()
    again = Work(name="other", seconds=0)
    assert jobs.enqueue(again, idempotency_key="kept") == first

    workshop.workers[0] = workshop.start_workers(1, processes=2)[0]

    jobs.result(first, timeout=30)
    assert workshop.count("kept", "ended") == 1
    assert jobs.status(first).attempts == 2
    assert workshop.entries("other") == []
    assert jobs.enqueue(again, idempotency_key="kept", unique_for=timedelta(0)) == first
