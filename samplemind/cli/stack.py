"""`samplemind up`, `down` and `status`: start, stop and look at what runs the platform."""

import asyncio
import importlib
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from threading import Thread
from typing import TYPE_CHECKING

import click

from samplemind.cli.output import console, error_console, json_option, print_json, print_table
from samplemind.embedded.checks import Verdict, examine_broker
from samplemind.embedded.home import StackHome
from samplemind.embedded.platform import (
    ROLES,
    Phase,
    SupervisorState,
    living_supervisor,
    process_environment,
    read_state,
)
from samplemind.embedded.process import ProcessRecord
from samplemind.embedded.services import Service, list_services, store_urls
from samplemind.embedded.stack import EmbeddedStack
from samplemind.embedded.supervisor import Supervisor
from samplemind.endpoints import Store
from samplemind.errors import ConflictError, SampleMindError, ServerStartError
from samplemind.settings import Settings, load_settings

if TYPE_CHECKING:
    from rich.status import Status

_POLL_S = 0.1
_STOP_MARGIN_S = 90
_SCHEDULE_TIMEOUT_S = 5


@click.command()
@click.option("-d", "--detach", is_flag=True, help="Return once all is healthy; leave it running.")
@click.option("--stores-only", is_flag=True, help="Only the stores: no workers, beat or console.")
@json_option
def up(detach: bool, stores_only: bool, as_json: bool) -> None:
    """Start what runs the platform; a second `up` finds it.

    Stores with a URL in the settings are used as they are; the others are started here, with
    their data in SAMPLEMIND_HOME. With --json it prints what `status` does, once all is healthy.

    Example: samplemind up --detach
    """
    settings, home = _home()
    supervisor = living_supervisor(home)
    if supervisor is not None:
        _await_running(home, supervisor)
        _announce(settings, f"It is running already (supervisor: pid {supervisor.pid}).", as_json)
    elif detach:
        _start_detached(settings, stores_only=stores_only, as_json=as_json)
    else:
        _run_here(settings, stores_only=stores_only, as_json=as_json)


@click.command()
@json_option
def down(as_json: bool) -> None:
    """Stop what `up` started; with nothing running that is done at once.

    Example: samplemind down
    """
    settings, home = _home()
    stack = EmbeddedStack(settings.home)
    supervisor = living_supervisor(home)
    if supervisor is None:
        was_running = _stop_remains(home, stack)
        message = "Stopped what was left running." if was_running else "Nothing was running."
        _tell_stopped(message, was_running=was_running, as_json=as_json)
        return
    with error_console.status("Stopping …"):
        supervisor.stop(signal.SIGTERM, 2 * settings.worker.drain_s + _STOP_MARGIN_S)
        stack.stop()  # what is left, should it have had to be killed
    _tell_stopped("Stopped.", was_running=True, as_json=as_json)


def _tell_stopped(message: str, *, was_running: bool, as_json: bool) -> None:
    if as_json:
        print_json({"stopped": True, "was_running": was_running})
    else:
        console.print(message)


@click.command()
@json_option
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Show each service with address, pid and health; exit 1 unless all are healthy.

    Example: samplemind status --json
    """
    settings, _ = _home()
    services = [*list_services(settings), *_schedule(settings)]
    _print_services(services, as_json)
    context.exit(0 if _all_healthy(services) else 1)


def _schedule(settings: Settings) -> list[Service]:
    """Return one line on the periodic jobs, where the stores that know of them answer."""
    urls = store_urls(settings)
    if Store.POSTGRES not in urls or Store.BROKER not in urls:
        return []  # their own lines say what is wrong
    from samplemind.connections.resources import Connections
    from samplemind.maintenance.watchdog import ScheduleStanding, schedule_standing

    async def ask() -> ScheduleStanding:
        async with (
            asyncio.timeout(_SCHEDULE_TIMEOUT_S),
            Connections(settings.with_urls(urls)) as connections,
        ):
            return await schedule_standing(connections, datetime.now(UTC))

    try:
        found = asyncio.run(ask())
    except (SampleMindError, TimeoutError):
        return []
    if not found.jobs:
        return []
    return [Service("schedule", "schedule", None, None, not found.problems, found.summary())]


def _home() -> tuple[Settings, StackHome]:
    settings = load_settings()
    home = StackHome(settings.home)
    home.require_access()
    return settings, home


def _run_here(settings: Settings, *, stores_only: bool, as_json: bool) -> None:
    # The drivers take as long to load as the stores to start: both at once.
    Thread(target=importlib.import_module, args=("samplemind.cli.migrate",), daemon=True).start()

    def migrate(complete: Settings) -> None:
        from samplemind.cli.migrate import run_migrations

        run_migrations(complete)

    def announce(complete: Settings) -> None:
        _warn_of_broker(settings)
        _announce(complete, "All is healthy. Ctrl-C stops it.", as_json)

    supervisor = Supervisor(
        settings, roles=() if stores_only else ROLES, migrate=migrate, announce=announce
    )
    if not supervisor.run():
        _announce(settings, "It is running already.", as_json)


def _start_detached(settings: Settings, *, stores_only: bool, as_json: bool) -> None:
    stack = EmbeddedStack(settings.home, settings.embedded_stores())
    stack.prepare()
    home = stack.home
    child = _spawn_supervisor(settings, home, stores_only=stores_only)
    try:
        _await_child(home, child)
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise
    _warn_of_broker(settings)
    message = f"All is healthy. Logs: {home.logs}. Stop it with `samplemind down`."
    _announce(settings, message, as_json)


def _spawn_supervisor(
    settings: Settings, home: StackHome, *, stores_only: bool
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "samplemind", "up"]
    try:
        home.rotate_log("supervisor")
        with home.log("supervisor").open("ab") as log:
            return subprocess.Popen(
                [*command, *(["--stores-only"] if stores_only else [])],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=process_environment(settings),
                cwd="/",
                start_new_session=True,
            )
    except OSError as error:
        message = f"the supervisor could not be started: {error}"
        raise ServerStartError(message) from error


def _await_child(home: StackHome, child: subprocess.Popen[bytes]) -> None:
    with error_console.status("Starting …") as spinner:
        while child.poll() is None:
            state = read_state(home)
            if state is not None and state.pid == child.pid:
                _show_phase(spinner, state)
                if state.phase is Phase.RUNNING:
                    return
            time.sleep(_POLL_S)
    state = read_state(home)
    if child.returncode == 0:
        return  # it found another one, which had been starting at the same time
    if state is not None and state.pid == child.pid and state.message:
        raise ServerStartError(state.message)
    message = f"the supervisor ended; the end of {home.log('supervisor')}:\n"
    raise ServerStartError(message + home.process("supervisor").log_tail())


def _await_running(home: StackHome, supervisor: ProcessRecord) -> None:
    """Wait while another `up` is still starting."""
    with error_console.status("Another `up` is under way …") as spinner:
        while supervisor.is_alive():
            state = read_state(home)
            if state is not None:
                _show_phase(spinner, state)
                if state.phase is Phase.RUNNING:
                    return
            time.sleep(_POLL_S)
    state = read_state(home)
    reason = state.message if state is not None else ""
    message = f"the other `up`, which was under way, has ended: {reason or 'it was stopped'}"
    raise ServerStartError(message)


def _show_phase(spinner: "Status", state: SupervisorState) -> None:
    spinner.update(f"{state.phase.value.capitalize()} …")


def _stop_remains(home: StackHome, stack: EmbeddedStack) -> bool:
    """Stop what a supervisor that was killed left running; tell whether there was anything."""
    was_running = any(process.is_alive() for process in home.processes())
    stack.stop()
    still = [process.name for process in home.processes() if process.is_alive()]
    if still:
        message = (
            f"{', '.join(still)} belong to another program than `samplemind up`, which still runs"
        )
        raise ConflictError(message)
    return was_running


def _announce(settings: Settings, message: str, as_json: bool) -> None:
    _print_services(list_services(settings), as_json)
    if not as_json:
        # A path in it must stay whole, to be copied.
        console.print(message, markup=False, soft_wrap=True)


def _warn_of_broker(settings: Settings) -> None:
    if settings.broker.url is None:
        return  # the embedded one never evicts
    finding = examine_broker(settings)
    if finding is not None and finding.verdict is not Verdict.OK:
        line = f"Warning: {finding.check}: {finding.message} → {finding.mend}"
        error_console.print(line, style="yellow", markup=False, soft_wrap=True)


def _all_healthy(services: list[Service]) -> bool:
    return all(service.healthy for service in services)


def _print_services(services: list[Service], as_json: bool) -> None:
    if as_json:
        listed = [asdict(service) for service in services]
        print_json({"healthy": _all_healthy(services), "services": listed})
        return
    print_table(
        ("service", "health", "address", "pid", "detail"),
        (
            (
                service.name,
                "healthy" if service.healthy else "not healthy",
                service.address,
                service.pid,
                service.detail,
            )
            for service in services
        ),
    )
