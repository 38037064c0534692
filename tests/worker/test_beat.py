"""Two beats, of which the leader is killed: every slot runs once.

The trials are seeded; SAMPLEMIND_BEAT_TRIALS sets their number (1 by default, 20 for the record).
"""

import json
import os
import random
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from samplemind.jobs.periodic import LEADER_KEY, SLOTS_KEY, TABLE_KEY, slot_key
from samplemind.jobs.wire import RoleName, heartbeat_key
from tests.worker.processes import (
    SHORT_LEASES,
    WorkerProcess,
    Workshop,
    open_workshop,
    wait_until,
)

pytestmark = pytest.mark.timeout(120)

TRIALS = int(os.environ.get("SAMPLEMIND_BEAT_TRIALS", "1"))
PERIOD_S = 4
PROBE = "probes.slot"


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    with open_workshop(
        tmp_path,
        SAMPLEMIND_SCHEDULE_LEASE_S="2",
        PROBE_PERIOD_S=str(PERIOD_S),
    ) as opened:
        yield opened


def start_beats(workshop: Workshop, number: int = 2) -> list[WorkerProcess]:
    return [
        workshop.start_process(
            "beat",
            module="tests.worker.beat_process",
            SAMPLEMIND_HOME=str(workshop.directory / f"beat-{each}"),
        )
        for each in range(number)
    ]


def leader_of(workshop: Workshop, beats: list[WorkerProcess]) -> WorkerProcess | None:
    token = workshop.broker.client.get(LEADER_KEY)
    if token is None:
        return None
    pid = int(str(token).split(":")[1])
    return next((beat for beat in beats if beat.pid == pid), None)


def health_of(workshop: Workshop) -> str:
    """Return the address that a beat tells in its sign of life."""
    redis = workshop.broker.client
    pattern = heartbeat_key(RoleName.BEAT, "*", 0).removesuffix("0") + "*"
    wait_until(lambda: bool(redis.keys(pattern)), seconds=10, what="the beat leaves a sign of life")
    [key] = redis.keys(pattern)
    return str(json.loads(str(redis.get(key)))["address"])


def status(address: str, path: str) -> int:
    try:
        with urllib.request.urlopen(f"{address}{path}", timeout=5) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("seed", range(TRIALS))
def test_a_killed_leader_is_replaced_and_no_slot_is_missed_or_runs_twice(
    workshop: Workshop, seed: int
) -> None:
    chance = random.Random(seed)
    workshop.start_worker()
    beats = start_beats(workshop)
    wait_until(lambda: leader_of(workshop, beats) is not None, seconds=30, what="a beat leads")
    wait_until(lambda: workshop.count("slot", "run") >= 1, seconds=30, what="the first slot runs")
    leader = leader_of(workshop, beats)
    assert leader is not None
    time.sleep(chance.uniform(0, PERIOD_S))  # the moment of the kill is what the trial is about
    if chance.random() < 0.5:
        leader.kill()
    else:
        # Frozen past its lease it wakes up as one of two who think that they lead.
        leader.signal(signal.SIGSTOP)
    killed = time.monotonic()
    others = [beat for beat in beats if beat is not leader]
    wait_until(lambda: leader_of(workshop, others) is not None, seconds=15, what="a new leader")
    assert time.monotonic() - killed < 15
    done = workshop.count("slot", "run")
    if leader.process.poll() is None:
        leader.signal(signal.SIGCONT)
    wait_until(
        lambda: workshop.count("slot", "run") >= done + 2, seconds=30, what="further slots run"
    )
    slots = [entry["slot"] for entry in workshop.entries("slot", "run")]
    assert max(Counter(slots).values()) == 1, slots
    moments = sorted(time.mktime(time.strptime(slot, "%Y-%m-%dT%H:%M:%SZ")) for slot in slots)
    gaps = {late - early for early, late in pairwise(moments)}
    assert gaps == {PERIOD_S}, slots


def test_a_slot_that_is_sent_twice_runs_once(workshop: Workshop) -> None:
    worker = workshop.start_worker()
    worker.wait_until_ready()
    for _ in range(3):
        workshop.send_slot(PROBE, "2026-01-01T00:00:00Z")
    workshop.send_slot(PROBE, "2026-01-01T00:00:04Z")
    workshop.wait_for("slot", "run", seconds=20, times=2)
    workshop.wait_until_settled()
    slots = Counter(entry["slot"] for entry in workshop.entries("slot", "run"))
    assert slots == {"2026-01-01T00:00:00Z": 1, "2026-01-01T00:00:04Z": 1}
    assert workshop.broker.client.exists(slot_key(PROBE, "2026-01-01T00:00:04Z"))


def test_a_slot_whose_worker_was_killed_runs_again(tmp_path: Path) -> None:
    with open_workshop(tmp_path, PROBE_SLOT_SECONDS="1.5", **SHORT_LEASES) as workshop:
        workshop.start_workers(2, processes=1)
        workshop.send_slot(PROBE, "2026-01-01T00:00:00Z")
        workshop.wait_for("slot", "begin", seconds=20)
        holder = workshop.entries("slot", "begin")[0]["parent"]
        killed = next(worker for worker in workshop.workers if worker.pid == holder)
        killed.kill()
        workshop.wait_for("slot", "run", seconds=30)
        assert workshop.count("slot", "begin") == 2


def test_a_beat_that_is_told_to_leave_gives_its_lease_back(workshop: Workshop) -> None:
    [beat] = start_beats(workshop, 1)
    redis = workshop.broker.client
    wait_until(lambda: redis.hlen(TABLE_KEY) == 1, seconds=30, what="the beat leaves its table")
    assert redis.hlen(SLOTS_KEY) == 1
    beat.signal(signal.SIGTERM)
    assert beat.wait(15) == 0
    assert redis.exists(LEADER_KEY) == 0


def test_a_beat_outlives_its_broker(workshop: Workshop) -> None:
    [beat] = start_beats(workshop, 1)
    redis = workshop.broker.client
    wait_until(lambda: redis.exists(LEADER_KEY) == 1, seconds=30, what="the beat leads")
    health = health_of(workshop)
    assert [status(health, path) for path in ("/live", "/ready")] == [200, 200]
    workshop.broker.stop(signal.SIGKILL)
    wait_until(lambda: beat.logged("beat_without_broker"), seconds=20, what="it notices")
    # A beat that waits for its broker is not to be restarted, but it does not do its work.
    wait_until(lambda: status(health, "/ready") == 503, seconds=10, what="it is not ready")
    assert status(health, "/live") == 200
    workshop.broker.start()
    wait_until(lambda: redis.exists(LEADER_KEY) == 1, seconds=30, what="it leads again")
    assert beat.process.poll() is None
    wait_until(lambda: status(health, "/ready") == 200, seconds=10, what="it is ready again")
