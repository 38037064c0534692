"""Real workers, driven through pytest-celery: in processes here, in containers where Docker is."""

import pytest
from pytest_celery import CeleryTestSetup

from tests.worker.processes import Workshop, wait_until

pytestmark = pytest.mark.timeout(120)


def test_a_killed_node_loses_no_job_and_works_again_after_its_restart(
    nodes: CeleryTestSetup, workshop: Workshop
) -> None:
    one, two = nodes.worker_cluster
    names = {one.hostname(), two.hostname()}
    wait_until(
        lambda: set(nodes.app.control.inspect(timeout=2).ping() or ()) == names,
        seconds=20,
        what="both answer to remote control",
    )
    for name in ("a", "b"):
        workshop.send("probes.work", name, 2.0)
    for name in ("a", "b"):
        workshop.wait_for(name, "started", seconds=15)

    one.kill()

    assert one.container.status == "exited"
    for name in ("a", "b"):
        workshop.wait_for(name, "ended", seconds=30)
    workshop.wait_until_settled(seconds=15)
    assert [workshop.count(name, "ended") for name in ("a", "b")] == [1, 1]

    one.restart()
    one.ready()
    two.kill()
    workshop.send("probes.work", "c", 0.1)
    workshop.wait_for("c", "ended", seconds=20)
    workshop.wait_until_settled(seconds=15)


def test_a_node_told_to_leave_ends_its_job_first(
    nodes: CeleryTestSetup, workshop: Workshop
) -> None:
    one, two = nodes.worker_cluster
    two.kill()
    workshop.send("probes.work", "short", 1.0)
    workshop.wait_for("short", "alive", seconds=15)

    one.kill("SIGTERM")

    assert workshop.count("short", "ended") == 1
    assert workshop.broker.unacknowledged() == 0
    one.assert_log_exists('"event": "drained"')
