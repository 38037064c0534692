"""Servers of a backup's own, on which it is proved: empty ones, and ones recovered from a base.

Invariant: a scratch server listens on a fresh loopback port, keeps its data in a directory of its
own, archives nothing (`archive_mode=off`: it must never write into the archive that it was
restored from), and is gone with the block; where its process was killed, with the next one's. The
address of a live store is never used.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from samplemind.backup.control import Control
from samplemind.backup.postgres_tools import Server
from samplemind.backup.wal import WalSegment, parse_lsn
from samplemind.backup.workspace import workspace
from samplemind.embedded.account import Account, replace_as, unprivileged_account
from samplemind.embedded.binaries import server_binary
from samplemind.embedded.home import StackHome
from samplemind.embedded.placement import place_postgres
from samplemind.embedded.ports import LOOPBACK, Ports
from samplemind.embedded.stack import EmbeddedStack
from samplemind.endpoints import Store
from samplemind.errors import BackupError
from samplemind.urls import libpq_url

_POLL_S = 0.05
_STOP_GRACE_S = 60
_RECOVERY_S = 6 * 3600
_HBA = f"host all all {LOOPBACK}/32 scram-sha-256\n"
_HBA_FILE = "samplemind_recovery_hba.conf"
# Its data are proved and thrown away: what a power cut would lose does not matter.
_THROWAWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class RecoveryTarget:
    """Where recovery ends: at a time, at a position, as soon as it is consistent, or at the end."""

    moment: datetime | None = None
    lsn: str | None = None
    immediate: bool = False

    @property
    def is_end(self) -> bool:
        """Whether everything that the archive has is replayed."""
        return self.moment is None and self.lsn is None and not self.immediate

    @property
    def needs_archive(self) -> bool:
        """Whether more is replayed than lies in the base backup itself."""
        return not self.immediate

    def settings(self) -> dict[str, str]:
        """Return the server's settings for it."""
        if self.moment is not None:
            text = self.moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")
            return {"recovery_target_time": text, "recovery_target_inclusive": "on"}
        if self.lsn is not None:
            # Everything that lies before the position, and nothing that begins there.
            return {"recovery_target_lsn": self.lsn, "recovery_target_inclusive": "off"}
        return {"recovery_target": "immediate"} if self.immediate else {}

    def reaches_back_to(self, finished_at: datetime, end_lsn: str | None) -> bool:
        """Tell whether recovery to here can begin from a base that was whole at that moment."""
        if self.moment is not None:
            return finished_at <= self.moment
        if self.lsn is not None:
            return end_lsn is not None and parse_lsn(end_lsn) <= parse_lsn(self.lsn)
        return True

    def is_after(self, until: datetime, last: WalSegment | None, segment_bytes: int) -> bool:
        """Tell whether the archive, which ends so, does not reach here."""
        if self.moment is not None:
            return self.moment > until
        if self.lsn is not None:
            return last is None or parse_lsn(self.lsn) // segment_bytes > last.number
        return False

    def __str__(self) -> str:
        if self.moment is not None:
            return self.moment.astimezone(UTC).isoformat()
        return self.lsn or ("the base backup" if self.immediate else "the end of the archive")


@dataclass(frozen=True)
class Reached:
    """What a recovery came to."""

    lsn: str
    last_commit: datetime | None
    timeline: int
    seconds: float


@contextmanager
def scratch_home() -> Iterator[StackHome]:
    """Make a home for scratch servers and remove it, with whatever it holds, at the end."""
    with workspace("scratch") as path:
        # As root, PostgreSQL runs as another account, which must get in.
        path.chmod(0o711)
        home = StackHome(path)
        home.prepare(unprivileged_account())
        yield home


@contextmanager
def scratch_servers(stores: Iterable[Store]) -> Iterator[dict[Store, SecretStr]]:
    """Start empty servers for the block; yield their URLs."""
    with scratch_home() as home:
        stack = EmbeddedStack(home.path, stores, durable=False)
        try:
            yield stack.start()
        finally:
            stack.stop()


def give_to_account(directory: Path) -> Account | None:
    """Give a directory that this process has just filled to the account that PostgreSQL runs as.

    The directory itself is given last: before, nobody else can put a link into it.
    """
    account = unprivileged_account()
    if account is not None:
        for root, directories, files in os.walk(directory, topdown=False):
            for name in (*directories, *files):
                os.chown(Path(root) / name, account.uid, account.gid, follow_symlinks=False)
        os.chown(directory, account.uid, account.gid)
    directory.chmod(0o700)
    return account


@contextmanager
def recovered_server(
    data: Path,
    source: Server,
    target: RecoveryTarget,
    wal: Path,
    control: Control,
    *,
    durable: bool,
) -> Iterator[tuple[Server, Reached]]:
    """Recover a restored data directory and serve it for the block.

    Args:
        data: an unpacked base backup, given to the server's account.
        source: the server that the backup was taken of: its users and passwords are in it.
        target: where recovery ends.
        wal: the folder that holds the archive's segments, plain.
        control: stops the waiting where the job is cancelled.
        durable: whether the data are kept after the block.

    Raises:
        BackupError: the server gave up, for instance because the WAL ends before the target.
    """
    with scratch_home() as home:
        (home.data / "postgres").symlink_to(data)
        placement = place_postgres(home, server_binary(Store.POSTGRES))
        _complete_configuration(placement.account, data)
        port = Ports(home.run).claim("postgres")
        settings = {
            "port": str(port),
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "hba_file": str(data / _HBA_FILE),
            "archive_mode": "off",
            "hot_standby": "on",
            "dynamic_shared_memory_type": "sysv",
            "restore_command": f'cp "{wal}/%f" "%p"',
            "recovery_target_action": "promote",
            **target.settings(),
            **({} if durable else _THROWAWAY),
        }
        options = [part for name, text in settings.items() for part in ("-c", f"{name}={text}")]
        replace_as(placement.account, data / "recovery.signal", "")
        process = home.process("postgres")
        began = time.monotonic()
        process.spawn(
            [str(placement.programs / "postgres"), "-D", str(data), *options],
            account=placement.account,
            environment=_environment(),
        )
        try:
            server = _at(source, port)
            reached = _await_promotion(server, process.is_alive, control, began)
            if reached is None:
                message = f"recovery to {target} ended early:\n{process.log_tail()}"
                raise BackupError(message)
            yield server, reached
        finally:
            process.stop(signal.SIGINT, _STOP_GRACE_S)


def _await_promotion(
    server: Server, is_alive: Callable[[], bool], control: Control, began: float
) -> Reached | None:
    deadline = began + _RECOVERY_S
    while is_alive() and time.monotonic() < deadline:
        control.check()
        try:
            with psycopg.connect(server.url.get_secret_value(), connect_timeout=5) as connection:
                row = connection.execute(
                    "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text, "
                    "pg_last_xact_replay_timestamp(), "
                    "(SELECT timeline_id FROM pg_control_checkpoint())"
                ).fetchone()
        except psycopg.OperationalError as error:
            if "authentication failed" in str(error):
                message = "the recovered server does not take the source's user and password"
                raise BackupError(message) from None
            row = None
        if row is not None and not row[0]:
            return Reached(row[1], row[2], row[3], round(time.monotonic() - began, 3))
        control.pause(_POLL_S)
    return None


def _complete_configuration(account: Account | None, data: Path) -> None:
    # Some systems keep the configuration elsewhere, where a base backup does not see it.
    for name in ("postgresql.conf", "pg_ident.conf"):
        if not (data / name).is_file():
            replace_as(account, data / name, "")
    replace_as(account, data / _HBA_FILE, _HBA)


def _environment() -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _at(source: Server, port: int) -> Server:
    fields = conninfo_to_dict(libpq_url(source.url.get_secret_value()))
    kept = {name: str(fields[name]) for name in ("user", "password", "dbname") if fields.get(name)}
    return Server(SecretStr(make_conninfo(**kept, host=LOOPBACK, port=str(port))))
