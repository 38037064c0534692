"""Leases and what Redis is still to be told, on a real broker that goes away."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from pydantic import SecretStr

from samplemind.settings import BrokerSettings
from tests.worker.processes import REPOSITORY, Broker, wait_until
from worker.broker import connect_broker
from worker.lease import LoopWatch, Renewal
from worker.ledger import UNACKED, UNACKED_INDEX, Ledger

LONG_AGO = 1.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    server = Broker(tmp_path)
    server.start()
    yield server
    server.client.close()
    server.stop()


@pytest.fixture
def client(broker: Broker) -> Iterator[redis.Redis]:
    with connect_broker(BrokerSettings(url=SecretStr(broker.url))) as made:
        yield made


def put_on_lease(broker: Broker, *tags: str) -> None:
    for tag in tags:
        broker.client.hset(UNACKED, tag, "text")
        broker.client.zadd(UNACKED_INDEX, {tag: LONG_AGO})


def test_a_renewal_keeps_what_is_held_and_brings_nothing_back(
    broker: Broker, client: redis.Redis
) -> None:
    put_on_lease(broker, "held", "of another")
    ledger = Ledger()
    ledger.hold(["held", "acknowledged meanwhile"])

    assert ledger.renew(client) == 1

    scores = dict(broker.client.zrange(UNACKED_INDEX, 0, -1, withscores=True))
    assert set(scores) == {"held", "of another"}
    assert scores["of another"] == LONG_AGO
    assert abs(scores["held"] - ledger.server_time()) < 5


def test_what_redis_could_not_be_told_is_told_in_order_when_it_is_back(
    broker: Broker, client: redis.Redis
) -> None:
    put_on_lease(broker, "done", "returned")
    broker.stop()
    ledger = Ledger()
    ledger.acknowledge("done")
    ledger.give_back(["returned", "unknown"])
    ledger.take_in("taken", "its text")
    ledger.take_in("taken and done", "its text")
    ledger.acknowledge("taken and done")
    assert not ledger.try_to_tell(client)

    broker.start()

    assert ledger.try_to_tell(client)
    assert set(broker.client.hkeys(UNACKED)) == {"returned", "taken"}
    scores = dict(broker.client.zrange(UNACKED_INDEX, 0, -1, withscores=True))
    assert set(scores) == {"returned", "taken"}
    assert scores["returned"] == 0
    assert abs(scores["taken"] - ledger.server_time()) < 5


def test_leases_are_renewed_while_the_main_loop_waits_for_redis(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_lease(broker, "held")
    ledger = Ledger()
    ledger.hold(["held"])
    monkeypatch.setattr("worker.lease.ledger", ledger)
    settings = BrokerSettings(url=SecretStr(broker.url), lease_s=3, lease_renewal_s=1)
    renewal = Renewal(settings)
    renewal.loop_seen_at = None  # without a connection the loop cannot show itself

    renewal.run_once()

    assert broker.client.zscore(UNACKED_INDEX, "held") != LONG_AGO


STUCK = """
import subprocess, sys, threading, time
from pydantic import SecretStr
from samplemind.settings import BrokerSettings
import worker.lease
from worker.ledger import ledger

worker.lease._STUCK_S = 2.0
job = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(job.pid, flush=True)
ledger.hold(["held"])
settings = BrokerSettings(url=SecretStr(sys.argv[1]), lease_s=3, lease_renewal_s=1)
renewal = worker.lease.Renewal(settings)
renewal.loop_seen_at = time.monotonic()
renewal.start()
threading.Event().wait(60)
"""


def test_a_worker_whose_main_loop_is_stuck_ends_its_jobs_gives_them_back_and_ends(
    broker: Broker,
) -> None:
    put_on_lease(broker, "held")
    with subprocess.Popen(
        [sys.executable, "-c", STUCK, broker.url], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as process:
        assert process.stdout is not None
        job = psutil.Process(int(process.stdout.readline()))
        wait_until(
            lambda: broker.client.zscore(UNACKED_INDEX, "held") != LONG_AGO,
            seconds=10,
            what="it renews as long as nothing says that the loop is stuck",
        )
        assert process.wait(20) == os.EX_SOFTWARE
    assert not job.is_running()
    assert broker.client.zscore(UNACKED_INDEX, "held") == 0


def test_a_process_that_was_frozen_does_not_take_its_loop_for_stuck() -> None:
    watch = LoopWatch(longest_step_s=2.0)
    assert watch.unseen_s(100.0, 101.0) == 0
    assert watch.unseen_s(100.0, 102.0) == 1
    assert watch.unseen_s(100.0, 1002.0) == 3  # it slept through all but two seconds
    assert watch.unseen_s(1002.0, 1003.0) == 0
    assert watch.unseen_s(None, 2000.0) == 0
