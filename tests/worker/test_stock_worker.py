"""Messages of the client, taken by a worker of plain Celery."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from samplemind.jobs.client import SyncJobs
from samplemind.jobs.payloads import Payload
from samplemind.settings import BrokerSettings, Settings
from tests.worker.processes import REPOSITORY, Broker, wait_until

pytestmark = pytest.mark.timeout(120)


class Answer(Payload):
    job_name = "probes.answer"
    name: str


def test_a_stock_worker_drains_what_the_client_sent(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.start()
    file = tmp_path / "answers"
    file.touch()
    names = [f"ä {number}" for number in range(50)]
    with SyncJobs(Settings(broker=BrokerSettings(url=SecretStr(broker.url)))) as jobs:
        jobs.enqueue_many([Answer(name=name) for name in names[:25]])
        jobs.enqueue_many([Answer(name=name) for name in names[25:]], priority=9)
    command = ["celery", "-A", "tests.worker.stock", "worker", "--pool=solo", "--queues=default"]
    worker = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=REPOSITORY,
        env={**os.environ, "STOCK_BROKER_URL": broker.url, "STOCK_FILE": str(file)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(
            lambda: file.read_text().splitlines() == names,
            seconds=60,
            what="it takes all, in order",
        )
        wait_until(lambda: broker.unacknowledged() == 0, seconds=10, what="it acknowledges all")
    finally:
        worker.kill()
        worker.wait(10)
        broker.client.close()
        broker.stop()
