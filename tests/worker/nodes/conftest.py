"""The platform's own workers as pytest-celery's nodes.

Every fixture of pytest-celery that would ask for Docker is replaced here, and only here: the
plugin's names mean nothing elsewhere in the suite.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from pydantic import SecretStr
from pytest_celery import (
    CeleryBrokerCluster,
    CeleryTestContainer,
    CeleryTestSetup,
    CeleryTestWorker,
    CeleryWorkerCluster,
    RedisTestBroker,
)

from samplemind.jobs.publishing import producer
from samplemind.settings import BrokerSettings, Settings
from tests.worker.nodes.containers import start_container
from tests.worker.processes import PROBES, Broker, Workshop

PROCESSES = 1


class BrokerContainer(CeleryTestContainer):
    """A Valkey on a port of its own."""

    url: str

    @property
    def celeryconfig(self) -> dict[str, str]:
        return {"url": self.url, "host_url": self.url}

    @property
    def ready_prompt(self) -> str:
        return "Ready to accept connections"

    def teardown(self) -> None:
        self._container.remove(force=True)


class WorkerContainer(CeleryTestContainer):
    """A worker of the platform, started as the platform starts it."""

    @property
    def ready_prompt(self) -> str:
        return " ready."

    def teardown(self) -> None:
        self._container.remove(force=True)


class Worker(CeleryTestWorker):
    """A worker node, addressed by the name that it was started with."""

    def hostname(self) -> str:
        return f"index@{self.name()}"


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    """Where the probes leave their traces; its broker is the node of these tests."""
    opened = Workshop(
        tmp_path,
        SAMPLEMIND_BROKER_LEASE_S="3",
        SAMPLEMIND_BROKER_LEASE_RENEWAL_S="1",
        SAMPLEMIND_BROKER_SWEEP_S="1",
    )
    yield opened
    opened.close()


@pytest.fixture
def celery_broker_cluster(workshop: Workshop, tmp_path: Path) -> Iterator[CeleryBrokerCluster]:
    broker: Broker = workshop.broker
    container = BrokerContainer(start_container("broker", broker.command, {}, tmp_path))
    container.url = broker.url
    node = RedisTestBroker(container)
    try:
        yield CeleryBrokerCluster(node)
    finally:
        node.teardown()  # a cluster's own teardown leaves its nodes running


@pytest.fixture
def celery_backend_cluster() -> None:
    """Jobs of the platform keep no results."""


@pytest.fixture
def celery_worker_cluster(
    celery_broker_cluster: CeleryBrokerCluster,
    celery_setup_app: Celery,
    workshop: Workshop,
    tmp_path: Path,
) -> Iterator[CeleryWorkerCluster]:
    celery_broker_cluster.ready()
    nodes = [
        Worker(WorkerContainer(_start_worker(name, workshop, tmp_path)), celery_setup_app)
        for name in ("one", "two")
    ]
    try:
        yield CeleryWorkerCluster(*nodes)
    finally:
        for node in nodes:
            node.teardown()


def _start_worker(name: str, workshop: Workshop, directory: Path) -> Any:
    command = [
        *(sys.executable, "-m", "worker.main", "index", f"--include={PROBES}"),
        f"--concurrency={PROCESSES}",
        f"--hostname=index@{name}",
    ]
    return start_container(name, command, workshop.environment, directory)


@pytest.fixture
def celery_setup_app(workshop: Workshop, tmp_path: Path) -> Iterator[Celery]:
    """A client of these nodes, as another service has it."""
    broker = BrokerSettings(url=SecretStr(workshop.broker.url))
    with producer(Settings(home=tmp_path, broker=broker)) as app:
        yield app


@pytest.fixture
def nodes(celery_setup: CeleryTestSetup) -> CeleryTestSetup:
    """All of it, ready."""
    assert celery_setup.ready(ping=False, control=True, docker=True)
    return celery_setup
