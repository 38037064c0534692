"""What `samplemind up` runs: the stores, then the platform's processes, each restarted if it dies.

Invariant: the supervisor is the parent of all that it runs and holds the home's lock as long as it
lives. However it ends, short of a kill, it stops everything in reverse order.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from samplemind.embedded.home import StackHome
from samplemind.embedded.platform import (
    STOP_ORDER,
    Phase,
    SupervisorState,
    process_environment,
    role_command,
    write_state,
)
from samplemind.embedded.ports import Ports
from samplemind.embedded.process import ManagedProcess, stop_all
from samplemind.embedded.services import Service, list_processes
from samplemind.embedded.stack import EmbeddedStack
from samplemind.endpoints import Store
from samplemind.errors import EmbeddedError, SampleMindError, ServerStartError
from samplemind.jobs.wire import RoleName
from samplemind.log import get_logger
from samplemind.settings import Settings

_CHECK_S = 0.5
_MAX_DELAY_S = 30
_ROTATION_S = 10
_STABLE_S = 60
_DRAIN_MARGIN_S = 10
_READY_TIMEOUT_S = 90

_log = get_logger(__name__)


def restart_delay_s(deaths: int) -> float:
    """Return how long to wait before the start after the nth death in a row: 1, 2, 4 … 30 s."""
    return min(_MAX_DELAY_S, 2.0 ** min(deaths - 1, 10))


@dataclass
class _Child:
    """Something that runs: how to see whether it lives and how to start it again."""

    name: str
    process: ManagedProcess
    start: Callable[[], None]
    deaths: int = 0
    started_at: float = 0.0
    start_at: float | None = None

    def tend(self, now: float) -> None:
        """Start it again if it has died and its time has come; `now` is a monotonic clock's."""
        if self.start_at is None:
            if self.process.is_alive():
                return
            self._plan_restart(now)
        elif now >= self.start_at:
            self._try_start(now)

    def _plan_restart(self, now: float) -> None:
        self.deaths = 1 if now - self.started_at > _STABLE_S else self.deaths + 1
        delay = restart_delay_s(self.deaths)
        self.start_at = now + delay
        _log.error(
            "process_died",
            process=self.name,
            exit_code=self.process.exit_code(),
            deaths=self.deaths,
            restart_in_s=delay,
            log=str(self.process.log_path),
        )

    def _try_start(self, now: float) -> None:
        self.started_at, self.start_at = now, None
        try:
            self.start()
        except SampleMindError as error:
            _log.error("process_not_restarted", process=self.name, error=str(error))
            return  # found dead at the next look
        _log.info("process_restarted", process=self.name)


class Supervisor:
    """The owner of a home: starts everything, keeps it running, stops it."""

    def __init__(
        self,
        settings: Settings,
        *,
        roles: Iterable[str],
        migrate: Callable[[Settings], None],
        announce: Callable[[Settings], None],
    ) -> None:
        """`migrate` brings the stores up to date; `announce` is told once when all is healthy."""
        self._settings = settings
        self._roles = tuple(roles)
        self._migrate = migrate
        self._announce = announce
        self._stack = EmbeddedStack(settings.home, settings.embedded_stores())
        self._home: StackHome = self._stack.home
        self._processes: dict[str, ManagedProcess] = {}
        self._phase: Phase | None = None

    def run(self) -> bool:
        """Run until a signal; return False at once where another process owns the home.

        Raises:
            SampleMindError: something did not start; all is stopped again then.
        """
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
        try:
            if not self._start():
                return False
            self._tend()
        except KeyboardInterrupt:
            self._say(Phase.STOPPING)
        except SampleMindError as error:
            self._say(Phase.FAILED, str(error))
            raise
        except Exception as error:  # the outermost edge of this process
            self._say(Phase.FAILED, f"an unexpected {type(error).__name__}; see its log")
            raise
        finally:
            self._stop()
        return True

    def _start(self) -> bool:
        if not self._stack.claim():
            return False
        self._say(Phase.STORES)
        settings = self._settings.with_urls(self._stack.start())
        self._say(Phase.MIGRATIONS)
        self._migrate(settings)
        self._say(Phase.PROCESSES)
        for role in self._roles:
            self._processes[role] = self._home.process(role)
            self._start_role(role)
        self._await_ready()
        self._say(Phase.RUNNING)
        self._announce(settings)
        return True

    def _start_role(self, role: str) -> None:
        process = self._processes[role]
        process.stop(signal.SIGTERM, 0)  # forgets the one that died
        try:
            self._home.rotate_log(role)
            port = self._console_port() if role == RoleName.CONSOLE else None
        except OSError as error:
            message = f"{role} could not be prepared: {error}"
            raise ServerStartError(message) from error
        environment = process_environment(self._settings, console_port=port)
        process.spawn(role_command(role), environment=environment)

    def _console_port(self) -> int:
        return self._settings.console.port or Ports(self._home.run).claim(RoleName.CONSOLE)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while True:
            ill = [service for service in list_processes(self._settings) if not service.healthy]
            if not ill:
                return
            late = time.monotonic() > deadline
            for service in ill:
                process = self._processes.get(service.name)
                if late or (process is not None and not process.is_alive()):
                    raise _not_ready(service, process)
            time.sleep(_CHECK_S / 2)

    def _tend(self) -> None:
        now = time.monotonic()
        children = [
            _Child(store.value, server.process, self._restart_of(store), started_at=now)
            for store, server in self._stack.servers.items()
        ]
        children += [
            _Child(role, process, self._start_of(role), started_at=now)
            for role, process in self._processes.items()
        ]
        rotate_at = now
        while True:
            for child in children:
                child.tend(time.monotonic())
            if time.monotonic() >= rotate_at:
                self._rotate_logs()
                rotate_at = time.monotonic() + _ROTATION_S
            time.sleep(_CHECK_S)

    def _rotate_logs(self) -> None:
        try:
            self._home.rotate_logs()
        except OSError as error:
            _log.warning("logs_not_rotated", error=str(error))

    def _restart_of(self, store: Store) -> Callable[[], None]:
        return lambda: self._stack.restart(store)

    def _start_of(self, role: str) -> Callable[[], None]:
        return lambda: self._start_role(role)

    def _stop(self) -> None:
        # From here on nothing may interrupt: a second Ctrl-C would leave servers behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if not self._stack.owned:
            return
        grace_s = self._settings.worker.drain_s + _DRAIN_MARGIN_S
        # Ends in reverse, the stores last, whatever could not be stopped before them.
        with ExitStack() as ending:
            ending.callback(self._stack.stop)
            ending.callback(self._stop_stores)
            for group in reversed(STOP_ORDER):
                processes = [self._processes[role] for role in group if role in self._processes]
                ending.callback(stop_all, processes, signal.SIGTERM, grace_s)

    def _stop_stores(self) -> None:
        self._stack.halt()
        if self._phase is not Phase.FAILED:  # why it failed is to be found later
            self._say(Phase.STOPPED)

    def _say(self, phase: Phase, message: str = "") -> None:
        if not self._stack.owned:
            return  # the state is that of another one
        self._phase = phase
        _log.info("phase", phase=phase.value)
        try:
            write_state(self._home, SupervisorState(os.getpid(), phase, self._roles, message))
        except OSError as error:
            fault = f"the state cannot be written: {error}"
            raise EmbeddedError(fault) from error


def _not_ready(service: Service, process: ManagedProcess | None) -> ServerStartError:
    message = f"{service.name} is not healthy: {service.detail}"
    if process is not None:
        message += f"; the end of {process.log_path}:\n{process.log_tail()}"
    return ServerStartError(message)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
