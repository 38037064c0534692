"""What each of the embedded servers does: start, tell whether it is healthy, stop.

Invariant: `start` returns only when the server answered an authenticated request; a server that
fails is reported with the last lines of its log.
"""

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import SecretStr

from samplemind.embedded.account import Account
from samplemind.embedded.binaries import server_binary
from samplemind.embedded.home import StackHome
from samplemind.embedded.libraries import require_libraries
from samplemind.endpoints import Store
from samplemind.errors import ServerStartError, StoreUnavailableError

USER = "samplemind"
# Recovery after a crash reads up to a gigabyte of log; a server that ended is noticed at once.
_START_TIMEOUT_S = 300
_POLL_S = 0.02


class Server(ABC):
    """One server of the embedded stack; a subclass for each kind."""

    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_grace_s: ClassVar[float] = 30

    def __init__(self, store: Store, home: StackHome, password: SecretStr) -> None:
        self.store = store
        self.home = home
        self.password = password
        self.process = home.process(store.value)
        self.data = home.data / store.value

    @property
    def account(self) -> Account | None:
        """As whom it runs; none: as this process."""
        return None

    @property
    def environment(self) -> Mapping[str, str] | None:
        """Its environment variables; none: those of this process."""
        return None

    @abstractmethod
    def prepare(self, port: int) -> list[str]:
        """Make its data directory and settings; return its command line, without a secret."""

    @abstractmethod
    def complete(self, port: int) -> None:
        """Ask it something with its password; make its database or user where missing.

        Raises:
            StoreUnavailableError: it does not answer, or not yet.
        """

    @abstractmethod
    def url(self, port: int) -> SecretStr:
        """Return its URL, with the password."""

    def start(self, port: int) -> None:
        """Start it and wait until it is healthy.

        Raises:
            ServerStartError: it ended, or was not healthy in time.
            MissingLibraryError: a system library is missing.
            NoServerWheelError: there is no such server for this platform.
        """
        self.launch(port)
        self._await_health(port)

    def launch(self, port: int) -> None:
        """Start it without waiting until it is healthy.

        Raises:
            ServerStartError: it could not be started.
            MissingLibraryError: a system library is missing.
            NoServerWheelError: there is no such server for this platform.
        """
        require_libraries(server_binary(self.store))
        try:
            command = self.prepare(port)
            self.home.rotate_log(self.store.value)
        except OSError as error:
            message = f"the {self.store.value} server could not be prepared: {error}"
            raise ServerStartError(message) from error
        self.process.spawn(command, account=self.account, environment=self.environment)

    def stop(self) -> None:
        """Stop it cleanly if it runs, whoever started it."""
        self.process.stop(self.stop_signal, self.stop_grace_s)

    def make_data_directory(self, path: Path) -> None:
        """Make a directory that only the server's account can read."""
        path.mkdir(mode=0o700, exist_ok=True)

    def _await_health(self, port: int) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                self.complete(port)
            except StoreUnavailableError as error:
                if not self.process.is_alive():
                    raise self._failure("ended at its start") from error
                if time.monotonic() > deadline:
                    raise self._failure("did not answer in time") from error
                time.sleep(_POLL_S)
            else:
                return

    def _failure(self, what: str) -> ServerStartError:
        return ServerStartError(
            f"the {self.store.value} server {what}; the end of {self.process.log_path}:\n"
            f"{self.process.log_tail()}"
        )
