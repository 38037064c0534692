"""Unique keys against a model: whatever producers, workers and kills do, in any order."""

import os
from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from samplemind.connections.resources import Connections
from samplemind.ids import new_id
from samplemind.jobs.client import SyncJobs
from samplemind.jobs.payloads import IndexFiles
from samplemind.jobs.state import BEGIN, END, JobState, job_key

EXAMPLES = int(os.environ.get("SAMPLEMIND_TEST_EXAMPLES", "15"))
TASK = IndexFiles.job_name
ACTIVE = {JobState.WAITING, JobState.RUNNING, JobState.RETRYING}


class UniqueKeys(RuleBasedStateMachine):
    """A dict of jobs and a dict of keys, which the broker must agree with after each step."""

    client: SyncJobs
    server: "redis.Redis"

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[str, JobState] = {}
        self.holders: dict[str, str] = {}
        # Begun after their state was lost, like a message of another program: of them the broker
        # knows neither that they were sent nor how long they hold a key.
        self.foreign: set[str] = set()
        self.messages: list[str] = []

    @initialize()
    def empty(self) -> None:
        self.server.flushdb()

    @rule(target=jobs, key=st.sampled_from("ab"), delayed=st.booleans())
    def enqueue(self, key: str, delayed: bool) -> str:
        delay = timedelta(hours=1) if delayed else None
        payload = IndexFiles(ids=(new_id(),))
        job_id = str(self.client.enqueue(payload, idempotency_key=key, delay=delay))
        holder = self.holders.get(key)
        kept = ACTIVE if holder in self.foreign else ACTIVE | {JobState.SUCCEEDED}
        if holder and self.states.get(holder) in kept:
            assert job_id == holder
        else:
            assert job_id not in self.states
            self.holders[key] = job_id
            self.states[job_id] = JobState.WAITING
            if not delayed:
                self.messages.append(job_id)
        return job_id

    @rule(job_id=jobs, redelivered=st.booleans())
    def deliver(self, job_id: str, redelivered: bool) -> None:
        """A worker gets the message: for the first time, again, or after another one's death."""
        verdict = self.server.eval(BEGIN, 0, job_id, TASK, "w", int(redelivered))
        state = self.states.get(job_id)
        if state is None:
            self.foreign.add(job_id)
        anew = job_id in self.foreign and not redelivered and state is not JobState.CANCELLED
        if state in ACTIVE or state is None or anew:
            assert verdict == b"run"
            self.states[job_id] = JobState.RUNNING
        else:
            assert verdict == state.value.encode()

    @rule(
        job_id=jobs,
        state=st.sampled_from(
            [JobState.SUCCEEDED, JobState.FAILED, JobState.DEAD, JobState.RETRYING]
        ),
    )
    def end(self, job_id: str, state: JobState) -> None:
        if self.states.get(job_id) is JobState.RUNNING:
            self.server.eval(END, 0, job_id, TASK, state.value, "", "", "inbox")
            self.states[job_id] = state

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        before = self.states.get(job_id)
        answer = self.client.cancel(job_id)
        if before is JobState.RUNNING:
            assert answer is JobState.RUNNING
            verdict = self.server.eval(BEGIN, 0, job_id, TASK, "w", 1)  # its worker was killed
            assert verdict == b"cancelled"
            self.states[job_id] = JobState.CANCELLED
        elif before in ACTIVE or before is None:
            assert answer is JobState.CANCELLED
            self.states[job_id] = JobState.CANCELLED
        else:
            assert answer is before

    @rule(job_id=consumes(jobs))
    def forget(self, job_id: str) -> None:
        """The state's life is over, or the broker lost it: the key must not outlive it."""
        self.server.delete(job_key(job_id))
        self.states.pop(job_id, None)

    @invariant()
    def states_agree(self) -> None:
        for job_id, state in self.states.items():
            fields = self.server.hgetall(job_key(job_id))
            assert fields[b"state"].decode() == state.value  # type: ignore[index]

    @invariant()
    def nothing_lives_for_ever(self) -> None:
        for pattern in ("sm:job:*", "sm:unique:*"):
            for key in self.server.scan_iter(pattern):
                assert self.server.ttl(key) > 0


@pytest.fixture
def machine(connections: Connections) -> Iterator[type[UniqueKeys]]:
    url = connections.settings.broker.url
    assert url is not None
    with SyncJobs(connections.settings) as client:
        server = redis.Redis.from_url(url.get_secret_value())

        class Bound(UniqueKeys):
            pass

        Bound.client, Bound.server = client, server
        yield Bound
        server.close()


def test_unique_keys_agree_with_their_model(machine: type[UniqueKeys]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
