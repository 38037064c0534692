"""The embedded PostgreSQL: cluster, settings, health.

Invariant: a cluster exists whole or not at all (it is made beside its place and renamed), and it
is durable: fsync stays on except in a stack that is made to be thrown away.
"""

import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import psutil
import psycopg
from psycopg import sql
from pydantic import SecretStr

from samplemind.embedded.account import Account, append_as, replace_as
from samplemind.embedded.binaries import server_binary
from samplemind.embedded.home import StackHome
from samplemind.embedded.placement import Placement, place_postgres
from samplemind.embedded.ports import LOOPBACK
from samplemind.embedded.server import USER, Server
from samplemind.endpoints import Store
from samplemind.errors import ServerStartError, StoreUnavailableError

DATABASE = "samplemind"
_SETTINGS_FILE = "samplemind.conf"
_CONNECT_TIMEOUT_S = 5
_BACKENDS_GRACE_S = 10
_POLL_S = 0.05
_PID_LINE_BYTES = 32

# Each value stands for a machine of 2 cores and 4 GiB that runs workers as well.
_SETTINGS: tuple[tuple[str, str, str], ...] = (
    ("listen_addresses", LOOPBACK, "nobody else's business"),
    ("unix_socket_directories", "", "a socket's path may not exceed 107 bytes, a home's may"),
    ("max_connections", "200", "a service's pool of 60, workers' pools, room for operators"),
    ("shared_buffers", "1GB", "the vectors' graph of some 1,000,000 files; taken as it fills"),
    ("effective_cache_size", "2GB", "what the kernel may cache besides; guides the planner"),
    ("work_mem", "16MB", "sorts and hashes of ranked searches stay in memory"),
    ("maintenance_work_mem", "256MB", "an HNSW graph is built several times faster in memory"),
    # POSIX shared memory is /dev/shm, which containers often limit to 64 MB: parallel index
    # builds would fail there. System V segments have no such limit.
    ("dynamic_shared_memory_type", "sysv", "containers limit /dev/shm"),
    ("random_page_cost", "1.1", "solid state disks: a random page costs about as a next one"),
    ("jit", "off", "compiling takes longer than our short queries"),
    ("shared_preload_libraries", "pg_stat_statements", "the slow query report"),
    ("pg_stat_statements.max", "2000", "statements remembered; the default of 5000 is ample"),
    ("compute_query_id", "on", "pg_stat_statements needs it"),
    ("track_io_timing", "on", "tells waiting for the disk from computing"),
    ("wal_level", "replica", "physical backups and recovery to a point in time"),
    ("summarize_wal", "on", "incremental base backups"),
    ("wal_compression", "pglz", "smaller page images for a little CPU"),
    ("max_wal_size", "1GB", "bounds the recovery after a crash to seconds"),
    ("min_wal_size", "128MB", "segments are reused, not made anew"),
    ("checkpoint_timeout", "10min", "fewer full page images than with 5"),
    ("autovacuum_vacuum_scale_factor", "0.05", "the index is merged into often: vacuum sooner"),
    ("autovacuum_analyze_scale_factor", "0.02", "fresh statistics for ranked searches"),
    ("timezone", "UTC", "times are UTC everywhere"),
    ("log_timezone", "UTC", "as above"),
    ("log_line_prefix", "%m [%p] %a ", "time, process, application"),
    ("log_lock_waits", "on", "a wait of over a second for a lock is worth a line"),
    ("lc_messages", "C", "messages that can be searched for"),
)
# For tests only: their data die with them, and a kill of processes, as opposed to a power cut,
# loses nothing that was handed to the kernel. It halves the time of a run on a slow disk.
_THROWAWAY = (("fsync", "off"), ("synchronous_commit", "off"), ("full_page_writes", "off"))


class PostgresServer(Server):
    """PostgreSQL, with a database of its own and scram authentication."""

    # Fast shutdown: sessions are ended, a checkpoint is written. SIGTERM would wait for sessions.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT

    def __init__(self, home: StackHome, password: SecretStr, *, durable: bool = True) -> None:
        super().__init__(Store.POSTGRES, home, password)
        self._durable = durable
        self._placement: Placement | None = None

    @property
    def placement(self) -> Placement:
        """Where it keeps its data, and as whom it runs."""
        if self._placement is None:
            self._placement = place_postgres(self.home, server_binary(Store.POSTGRES))
        return self._placement

    @property
    def account(self) -> Account | None:
        """As whom it runs: never root."""
        return self.placement.account

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables of this process, without PostgreSQL's own."""
        # PG… variables of an operator's shell would change what the server does.
        kept = {name: text for name, text in os.environ.items() if not name.startswith("PG")}
        return {**kept, "LC_ALL": "C.UTF-8", "TZ": "UTC"}

    def prepare(self, port: int) -> list[str]:
        """Make the cluster where missing, and write the settings."""
        data = self.placement.data
        if not (data / "PG_VERSION").is_file():
            self._make_cluster(data)
        _clear_stale_lock(data)
        replace_as(self.account, data / _SETTINGS_FILE, self._settings(port))
        return [str(self.placement.programs / "postgres"), "-D", str(data)]

    def complete(self, port: int) -> None:
        """Connect with the password; make the database where missing."""
        try:
            with self._connect(port, "postgres") as connection:
                known = connection.execute(
                    "SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)
                ).fetchone()
                if known is None:
                    connection.execute(
                        sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE))
                    )
        except psycopg.Error as error:
            message = f"PostgreSQL does not answer: {type(error).__name__}"
            raise StoreUnavailableError(message) from error

    def url(self, port: int) -> SecretStr:
        """Return the URL of the platform's database."""
        password = self.password.get_secret_value()
        return SecretStr(f"postgresql://{USER}:{password}@{LOOPBACK}:{port}/{DATABASE}")

    def _connect(self, port: int, database: str) -> psycopg.Connection:
        return psycopg.connect(
            host=LOOPBACK,
            port=port,
            user=USER,
            password=self.password.get_secret_value(),
            dbname=database,
            connect_timeout=_CONNECT_TIMEOUT_S,
            autocommit=True,
        )

    def _settings(self, port: int) -> str:
        values = [("port", str(port)), *((name, value) for name, value, _ in _SETTINGS)]
        if not self._durable:
            values += _THROWAWAY
        return "".join(f"{name} = '{value}'\n" for name, value in values)

    def _make_cluster(self, data: Path) -> None:
        # Both lie in the directory above the data, which the account does not own.
        draft = data.with_name("postgres.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        self._give_away(draft)
        password_file = data.with_name("postgres.password")
        try:
            self._write_password(password_file)
            self._run_initdb(draft, password_file)
        finally:
            password_file.unlink(missing_ok=True)
        include = f"\ninclude_if_exists = '{_SETTINGS_FILE}'\n"
        append_as(self.account, draft / "postgresql.conf", include)
        draft.rename(data)

    def _run_initdb(self, data: Path, password_file: Path) -> None:
        command = [
            str(self.placement.programs / "initdb"),
            f"--pgdata={data}",
            f"--username={USER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # The server's own collation: an upgrade of the C library cannot corrupt an index.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C.UTF-8",
            "--no-instructions",
        ]
        if not self._durable:
            command.append("--no-sync")
        account = self.account
        result = subprocess.run(
            command,
            cwd="/",
            env=dict(self.environment),
            capture_output=True,
            text=True,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
        )
        if result.returncode != 0:
            message = f"initdb failed:\n{result.stderr.strip()}"
            raise ServerStartError(message)

    def _write_password(self, path: Path) -> None:
        path.unlink(missing_ok=True)  # of a start that was killed
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(self.password.get_secret_value())
        self._give_away(path)

    def _give_away(self, path: Path) -> None:
        account = self.account
        if account is not None:
            os.chown(path, account.uid, account.gid, follow_symlinks=False)


def _clear_stale_lock(data: Path) -> None:
    """Remove a postmaster.pid whose pid now belongs to another program.

    PostgreSQL would refuse to start: it sees only that the pid is alive. A pid that is dead it
    handles by itself, with checks of shared memory that must not be taken from it.
    """
    lock = data / "postmaster.pid"
    pid = _recorded_pid(lock)
    if pid is None:
        return
    # What a killed postmaster leaves notices that within moments.
    deadline = time.monotonic() + _BACKENDS_GRACE_S
    while _processes_in(data) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    if psutil.pid_exists(pid) and not _processes_in(data):
        lock.unlink(missing_ok=True)


def _recorded_pid(lock: Path) -> int | None:
    # The account may have put anything there: a link is not followed, a pipe not waited for.
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        message = f"{lock} cannot be read: {error.strerror}"
        raise ServerStartError(message) from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            message = f"{lock} is no file of PostgreSQL's: remove it"
            raise ServerStartError(message)
        first, _, _ = file.read(_PID_LINE_BYTES).partition(b"\n")
    # PostgreSQL judges what is not as it writes it.
    return int(first) if first.isdigit() else None


def _processes_in(data: Path) -> list[psutil.Process]:
    # A PostgreSQL process works in its data directory, and in no other.
    return [
        process
        for process in psutil.process_iter(["cwd", "status"])
        if process.info["cwd"] == str(data) and process.info["status"] != psutil.STATUS_ZOMBIE
    ]
