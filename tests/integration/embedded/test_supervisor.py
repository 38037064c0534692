import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr

from samplemind.embedded.home import HomeLock, StackHome
from samplemind.embedded.platform import Phase, read_state
from samplemind.embedded.process import ProcessRecord
from samplemind.embedded.services import Service, list_services
from samplemind.embedded.stack import EmbeddedStack
from samplemind.embedded.supervisor import Supervisor
from samplemind.endpoints import Store, read_endpoints
from samplemind.errors import EmbeddedError
from samplemind.jobs.wire import heartbeat_key
from samplemind.settings import Settings, load_settings
from tests.integration.embedded.conftest import Rows, kill_all, processes_of

_STORES = ("postgres", "mongo", "broker", "cache")
_PROCESSES = ("console", "audio", "index", "maintenance", "beat")
_SUPERVISOR = "supervisor"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(home: Path) -> Iterator[Run]:
    """Call `samplemind` as an operator would, and take down at the end what it started."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "samplemind", *arguments],
            env={**os.environ, "SAMPLEMIND_HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=120,
        )

    yield call
    left = HomeLock(StackHome(home)).owner()
    if left is not None:
        left.stop(signal.SIGTERM, 60)


def _services(home: Path) -> dict[str, Service]:
    settings = load_settings().model_copy(update={"home": home})
    return {service.name: service for service in list_services(settings)}


def _await(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def _supervisor(home: Path) -> ProcessRecord:
    owner = HomeLock(StackHome(home)).owner()
    assert owner is not None
    return owner


def test_an_up_that_fails_says_what_and_leaves_nothing_running(run: Run, home: Path):
    (home / "data" / "broker").mkdir(parents=True)
    (home / "data" / "broker" / "appendonlydir").write_text("not a directory")
    failed = run("up", "--detach", "--stores-only")
    assert failed.returncode == 1
    assert "broker server ended at its start" in failed.stderr
    assert "appendonlydir" in failed.stderr
    assert "the broker server ended at its start" in _services(home)[_SUPERVISOR].detail
    assert processes_of(home) == []
    assert HomeLock(StackHome(home)).owner() is None


def test_the_platform_comes_up_heals_recovers_from_a_kill_of_everything_and_goes_down(
    run: Run, home: Path
):
    first = run("up", "--detach")
    assert first.returncode == 0, first.stderr
    services = _services(home)
    assert list(services) == [*_STORES, *_PROCESSES, _SUPERVISOR]
    assert all(service.healthy and service.pid for service in services.values())
    passwords = json.loads((home / "passwords.json").read_text()).values()
    assert not any(password in first.stdout for password in passwords)
    Rows.write(read_endpoints(home))

    # A second one finds the first.
    supervisor = _supervisor(home)
    again = run("up", "--detach")
    assert again.returncode == 0
    assert "running already" in again.stdout
    shown = json.loads(run("up", "--json").stdout)
    assert shown["healthy"] is True
    assert [service["name"] for service in shown["services"]] == list(services)
    assert _supervisor(home) == supervisor

    # Another machine on the same broker is told apart.
    sign = json.dumps({"role": "audio", "host": "elsewhere", "pid": 1})
    with redis.Redis.from_url(read_endpoints(home)[Store.BROKER].get_secret_value()) as client:
        client.set(heartbeat_key("audio", "elsewhere", 1), sign)
    assert _services(home)["audio"].detail == "working; also on elsewhere (pid 1)"

    # What dies is started again.
    for name in ("broker", "index"):
        pid = services[name].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    _await(
        lambda: all(
            service.healthy
            and (name not in ("broker", "index") or service.pid != services[name].pid)
            for name, service in _services(home).items()
        ),
        "broker and index were not started again",
    )

    # The next one recovers from a kill of everything.
    kill_all([_supervisor(home), *processes_of(home)])
    assert not any(service.healthy for service in _services(home).values())
    second = run("up", "--detach")
    assert second.returncode == 0, second.stderr
    assert Rows.read(read_endpoints(home)) == ["row", "row", "row"]

    # What died while nothing could restart it is told at once, whatever sign it left.
    frozen, audio = _supervisor(home), StackHome(home).process("audio").record
    assert audio is not None
    os.kill(frozen.pid, signal.SIGSTOP)
    kill_all([audio])
    assert not _services(home)["audio"].healthy

    # What outlived its supervisor is told, and stopped too: nobody would look after it.
    survivors = processes_of(home)
    kill_all([frozen])
    assert "nothing restarts what dies" in _services(home)[_SUPERVISOR].detail
    down = run("down", "--json")
    assert json.loads(down.stdout) == {"stopped": True, "was_running": True}
    assert not any(process.is_alive() for process in survivors)


def test_an_up_that_the_system_refuses_is_one_line(run: Run, home: Path):
    (home / "logs" / "supervisor.log").mkdir(parents=True)
    failed = run("up", "--detach")
    assert failed.returncode == 1
    assert failed.stderr.startswith("Error: the supervisor could not be started")
    assert len(failed.stderr.splitlines()) == 1


def test_an_up_with_a_broker_that_may_evict_jobs_starts_and_warns(
    run: Run, stack: Settings, monkeypatch: pytest.MonkeyPatch
):
    for store in Store:
        url = stack.url(Store.CACHE if store is Store.BROKER else store)
        assert url is not None
        monkeypatch.setenv(f"SAMPLEMIND_{store.name}_URL", url.get_secret_value())
    up = run("up", "--detach", "--stores-only")
    assert up.returncode == 0, up.stderr
    assert "Warning: broker: its policy allkeys-lfu can evict" in up.stderr
    assert run("down").returncode == 0


def test_a_store_that_cannot_be_started_again_stops_nothing_else(run: Run, home: Path):
    assert run("up", "--detach", "--stores-only").returncode == 0
    before, supervisor, logs = _services(home), _supervisor(home), StackHome(home).logs
    (logs / "broker.log").rename(logs / "kept")
    (logs / "broker.log").mkdir()  # as a full disk does, it refuses to be opened
    pid = before["broker"].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    _await(
        lambda: "process_not_restarted" in (logs / "supervisor.log").read_text(), "no start failed"
    )

    # It still looks after the rest.
    os.truncate(logs / "cache.log", 17 << 20)
    _await(lambda: (logs / "cache.log.1").exists(), "the large log was not put away")
    (logs / "broker.log").rmdir()
    _await(lambda: _services(home)["broker"].healthy, "the broker was not started again")
    after = _services(home)
    assert _supervisor(home) == supervisor
    assert all(after[name].pid == before[name].pid for name in _STORES if name != "broker")
    assert run("down").returncode == 0


@pytest.fixture
def _signals() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_signals")
def test_a_supervisor_that_meets_the_unexpected_stops_everything_and_says_so(home: Path):
    elsewhere = {
        Store.POSTGRES: SecretStr("postgresql://nobody@127.0.0.1:1/none"),
        Store.MONGO: SecretStr("mongodb://127.0.0.1:1/"),
        Store.BROKER: SecretStr("redis://127.0.0.1:1/0"),
    }
    settings = load_settings().model_copy(update={"home": home}).with_urls(elsewhere)
    running: list[ProcessRecord] = []

    def migrate(_: Settings) -> None:
        running.extend(processes_of(home))
        (StackHome(home).run / "beat.pid").write_text("no record")
        message = "a fault that nobody thought of"
        raise LookupError(message)

    supervisor = Supervisor(settings, roles=["beat"], migrate=migrate, announce=lambda _: None)
    with pytest.raises(EmbeddedError, match="beat could not be stopped"):
        supervisor.run()
    (StackHome(home).run / "beat.pid").unlink()
    state = read_state(StackHome(home))
    assert state is not None
    assert (state.phase, "LookupError" in state.message) == (Phase.FAILED, True)
    assert len(running) == 1
    assert not running[0].is_alive()


@pytest.mark.usefixtures("_signals")
@pytest.mark.parametrize(
    ("fault", "phase"), [(KeyboardInterrupt(), Phase.STOPPED), (EmbeddedError("x"), Phase.FAILED)]
)
def test_a_start_that_ends_while_the_stores_start_leaves_how_it_ended(
    home: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException, phase: Phase
):
    def end(_: EmbeddedStack) -> None:
        raise fault

    monkeypatch.setattr(EmbeddedStack, "_start_servers", end)
    settings = load_settings().model_copy(update={"home": home})
    supervisor = Supervisor(settings, roles=[], migrate=lambda _: None, announce=lambda _: None)
    if phase is Phase.FAILED:
        with pytest.raises(EmbeddedError):
            supervisor.run()
    else:
        assert supervisor.run()
    state = read_state(StackHome(home))
    assert state is not None
    assert state.phase is phase
    assert HomeLock(StackHome(home)).owner() is None


def test_ctrl_c_in_the_foreground_stops_everything_and_down_has_nothing_left_to_do(
    run: Run, home: Path
):
    command = [sys.executable, "-m", "samplemind", "up", "--stores-only"]
    environment = {**os.environ, "SAMPLEMIND_HOME": str(home)}
    # A shell's background jobs ignore SIGINT, and the tests may be one.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, process_group=0
    ) as foreground:
        signal.signal(signal.SIGINT, before)
        assert foreground.stdout is not None
        assert any("All is healthy" in line for line in foreground.stdout)
        status = run("status", "--json")
        assert status.returncode == 0
        answer = json.loads(status.stdout)
        assert answer["healthy"] is True
        assert [service["name"] for service in answer["services"]] == [*_STORES, _SUPERVISOR]
        running = processes_of(home)
        # As a terminal does: the whole group gets it, so the servers must not be in it.
        os.killpg(foreground.pid, signal.SIGINT)
        assert foreground.wait(60) == 0
    assert not any(process.is_alive() for process in running)
    assert "database system is shut down" in StackHome(home).process("postgres").log_tail()
    assert run("down").returncode == 0
    down = run("status", "--json")
    assert down.returncode == 1
    answer = json.loads(down.stdout)
    assert answer["healthy"] is False
    # Whoever stopped it knows that nothing restarts what dies.
    assert _SUPERVISOR not in [service["name"] for service in answer["services"]]
