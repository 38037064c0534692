"""What can be known and imported of the worker with nothing running."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from samplemind.embedded.platform import ROLES as SUPERVISED
from samplemind.jobs.wire import Queue, RoleName, queue_for, transport_options
from samplemind.settings import BrokerSettings, Settings
from tests.worker.processes import REPOSITORY, open_workshop
from worker.roles import ROLES
from worker.task import retry_delay


def run_python(code: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments] if arguments else [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={"SAMPLEMIND_HOME": str(home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_app_can_be_imported_with_nothing_running(tmp_path: Path) -> None:
    done = run_python("import worker.app; print(worker.app.app.main)", tmp_path / "none")
    assert (done.returncode, done.stdout.strip()) == (0, "samplemind"), done.stderr


def test_knowing_the_roles_loads_no_celery(tmp_path: Path) -> None:
    code = "import sys, json, worker.roles; print(json.dumps('celery' in sys.modules))"
    done = run_python(code, tmp_path)
    assert json.loads(done.stdout) is False, done.stderr


def test_a_worker_without_a_stack_says_what_to_do(tmp_path: Path) -> None:
    done = run_python("", tmp_path, "-m", "worker.main", "index")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: no address for")
    assert "samplemind up" in done.stderr


def test_an_unknown_role_is_refused_with_the_list_of_roles(tmp_path: Path) -> None:
    done = run_python("", tmp_path, "-m", "worker.main", "cook")
    assert done.returncode == 2
    assert "audio,index,maintenance,beat,console" in done.stderr


def test_a_worker_that_cannot_start_fails(tmp_path: Path) -> None:
    with open_workshop(tmp_path) as workshop:
        worker = workshop.start_process("index", "--queues=no-such-queue")
        assert worker.wait(30) == 1
        assert "no-such-queue" in worker.log.read_text()


def test_what_the_supervisor_starts_are_the_roles_that_exist() -> None:
    assert sorted(ROLES) == sorted(RoleName) == sorted(SUPERVISED)


def test_every_queue_is_served_by_exactly_one_role() -> None:
    served = [queue for role in ROLES.values() for queue in role.queues]
    assert sorted(served) == sorted(Queue)


@pytest.mark.parametrize(
    ("job", "queue"),
    [
        ("batches.analyze", Queue.AUDIO),
        ("batches.finish", Queue.DEFAULT),
        ("search.index", Queue.INDEX),
        ("backups.create", Queue.MAINTENANCE),
        ("retention.run", Queue.MAINTENANCE),
        ("anything.else", Queue.DEFAULT),
    ],
)
def test_a_job_goes_to_the_queue_of_its_kind(job: str, queue: Queue) -> None:
    assert queue_for(job) is queue


def test_the_audio_role_runs_as_many_processes_as_the_settings_say(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, worker={"audio_concurrency": 3})
    assert "--concurrency=3" in ROLES["audio"].arguments(settings)


def test_leases_follow_the_settings() -> None:
    options = transport_options(BrokerSettings(lease_s=60, lease_renewal_s=10, sweep_s=5))
    assert options["visibility_timeout"] == 60
    assert options["unacked_restore_interval"] * options["unacked_restore_throttle"] == 5


def test_the_delay_before_a_retry_grows_up_to_its_cap_and_is_spread_below_it() -> None:
    def longest(retries: int) -> float:
        return max(retry_delay(retries, base_s=1, cap_s=60) for _ in range(300))

    assert 0.8 < longest(0) <= 1
    assert 3.2 < longest(2) <= 4
    assert 48 < longest(40) <= 60
    assert min(retry_delay(40, base_s=1, cap_s=60) for _ in range(300)) < 12
