"""The embedded servers together.

Invariant: whoever holds the lock of a home owns its servers. `start` first stops, cleanly and by
record, what an owner that died left running, and only then starts anew; the addresses exist only
while all servers are healthy.
"""

import signal
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from pydantic import SecretStr

from samplemind.embedded.account import unprivileged_account
from samplemind.embedded.home import HomeLock, StackHome
from samplemind.embedded.mongo import MongoServer
from samplemind.embedded.passwords import load_passwords
from samplemind.embedded.ports import Ports
from samplemind.embedded.postgres import PostgresServer
from samplemind.embedded.process import stop_all
from samplemind.embedded.server import Server
from samplemind.embedded.valkey import ValkeyServer
from samplemind.endpoints import Store, read_endpoints, remove_endpoints, write_endpoints
from samplemind.errors import ServerStartError

_OTHER_START_TIMEOUT_S = 600
_POLL_S = 0.05
_ORPHAN_GRACE_S = 15


class EmbeddedStack:
    """The servers of one home: those of `stores`, the others are served by URLs."""

    def __init__(
        self, home: Path, stores: Iterable[Store] = Store, *, durable: bool = True
    ) -> None:
        """`durable=False` is for tests: PostgreSQL then survives a kill, but no power cut."""
        self.home = StackHome(home)
        self._stores = tuple(store for store in Store if store in set(stores))
        self._durable = durable
        self._lock = HomeLock(self.home)
        self._ports = Ports(self.home.run)
        self._servers: dict[Store, Server] = {}

    @property
    def owned(self) -> bool:
        """Whether this object runs the servers; if not, another process may."""
        return self._lock.held

    @property
    def servers(self) -> Mapping[Store, Server]:
        """The servers that this object started."""
        return self._servers

    def claim(self) -> bool:
        """Become the owner of the home; False where another living process serves it.

        One that is just starting is waited for.

        Raises:
            EmbeddedError: the home cannot be used, or the other one has not finished for minutes.
        """
        self.prepare()
        deadline = time.monotonic() + _OTHER_START_TIMEOUT_S
        while not self._lock.acquire():
            if self._find() is not None:
                return False
            if time.monotonic() > deadline:
                message = (
                    f"another process has been starting the stack in {self.home.path} for "
                    f"{_OTHER_START_TIMEOUT_S} s; see the logs in {self.home.logs}"
                )
                raise ServerStartError(message)
            time.sleep(_POLL_S)
        if not self._servers:
            remove_endpoints(self.home.path)  # of an owner that died
        return True

    def prepare(self) -> None:
        """Make the home's directories.

        Raises:
            ServerStartError: they cannot be made or written.
        """
        own_account = Store.POSTGRES in self._stores
        self.home.prepare(unprivileged_account() if own_account else None)

    def start(self) -> dict[Store, SecretStr]:
        """Start the servers, or find those of another living process; return the URLs.

        Raises:
            EmbeddedError: a server did not start; none is left running then.
        """
        if self._servers:
            return self._urls()
        claimed_before = self.owned
        while not self.claim():
            found = self._find()
            if found is not None:
                return found
        try:
            self._stop_recorded()
            self._start_servers()
        except BaseException:
            self.halt()
            if not claimed_before:
                self._lock.release()
            raise
        urls = self._urls()
        write_endpoints(self.home.path, urls)
        return urls

    def stop(self) -> None:
        """Stop the servers, the broken ones too; repeating it is harmless.

        What another living process owns is left alone; what a dead one left running is stopped.
        """
        if not self.home.run.is_dir() or not self._lock.acquire():
            return
        self.halt()
        self._lock.release()

    def halt(self) -> None:
        """Stop the servers and stay the owner of the home, which this object must be."""
        remove_endpoints(self.home.path)
        self._stop_recorded()
        self._servers = {}

    def restart(self, store: Store) -> None:
        """Start a server again that has died, on the port that it had.

        It recovers by itself, which may take minutes and is not waited for.

        Raises:
            EmbeddedError: it did not start.
        """
        server = self._servers[store]
        server.stop()
        server.launch(self._ports.known()[store.value])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _find(self) -> dict[Store, SecretStr] | None:
        urls = read_endpoints(self.home.path)
        if any(store not in urls for store in self._stores):
            return None
        return {store: urls[store] for store in self._stores}

    def _make_servers(self) -> dict[Store, Server]:
        passwords = load_passwords(self.home.path)
        servers: tuple[Server, ...] = (
            PostgresServer(self.home, passwords[Store.POSTGRES], durable=self._durable),
            MongoServer(self.home, passwords[Store.MONGO]),
            ValkeyServer(Store.BROKER, self.home, passwords[Store.BROKER]),
            ValkeyServer(Store.CACHE, self.home, passwords[Store.CACHE]),
        )
        return {server.store: server for server in servers}

    def _start_servers(self) -> None:
        made = self._make_servers()
        self._servers = {store: made[store] for store in self._stores}
        ports = {store: self._ports.claim(store.value) for store in self._stores}
        with ThreadPoolExecutor(max_workers=len(Store)) as pool:
            starts = [
                pool.submit(server.start, ports[store]) for store, server in self._servers.items()
            ]
        for start in starts:
            start.result()

    def _stop_recorded(self) -> None:
        # Workers first: they give their jobs back to a broker that still runs.
        workers = [process for process in self.home.processes() if process.name not in set(Store)]
        servers = {**self._make_servers(), **self._servers}
        try:
            stop_all(workers, signal.SIGTERM, _ORPHAN_GRACE_S)
        finally:
            with ThreadPoolExecutor() as pool:
                stops = [pool.submit(server.stop) for server in servers.values()]
            for stop in stops:
                stop.result()

    def _urls(self) -> dict[Store, SecretStr]:
        ports = self._ports.known()
        return {store: server.url(ports[store.value]) for store, server in self._servers.items()}
