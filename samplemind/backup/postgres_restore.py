"""Writing a logical backup into a PostgreSQL database: definitions, rows, indexes.

The order is that of the least work: definitions without indexes, rows by parallel COPY, sequences,
then keys and indexes side by side, ANALYZE, and the HNSW graphs last and one by one with the
memory that each needs. Deferred, they are left to `build_deferred`, and the database takes traffic
before.

Invariant: rows are counted by the server against what the backup says, and a difference is an
error. Roles that exist already are never altered.
"""

import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from samplemind.backup.control import Control
from samplemind.backup.logical import copy_in
from samplemind.backup.parallel import run_parallel
from samplemind.backup.postgres_tools import PostgresTools, Server, run_tool, running
from samplemind.backup.relations import SequencePlace, Table
from samplemind.errors import BackupCorruptError, BackupError, ConflictError

_GRAPH = re.compile(r"USING (hnsw|ivfflat)", re.IGNORECASE)
_ROLE = re.compile(r'^(?:CREATE|ALTER) ROLE ("(?:[^"]|"")+"|\S+?)(?:;| )')
_NAME = r'(?:"(?:[^"]|"")+"|[^\s";]+)'
# What pg_dump writes of a database itself, up to its name; who owns it is the target's affair.
_OF_DATABASE = re.compile(
    rf"^((?:ALTER|COMMENT ON) DATABASE|ALTER ROLE {_NAME} IN DATABASE"
    rf"|(?:GRANT|REVOKE) .+ ON DATABASE) {_NAME}(?=[ ;])(?! OWNER TO)"
)
_LISTED = re.compile(r"^\d+; \d+ \d+ INDEX \S+ (\S+) ")
_MIB = 2**20
_LEAST_MEMORY_MIB = 64
# Left to the rest of the machine while a graph is built.
_MEMORY_SHARE = 0.25
# What a graph takes: its vectors, and for each of them links and the allocator's rounding (1,227
# bytes in all were measured for 128 dimensions and the default m). A graph that does not fit is
# built several times slower, so rather too much.
_VECTOR_FACTOR = 1.2
_LINK_BYTES = 60
_NODE_BYTES = 250
_DEFAULT_M = 16

Read = Callable[[str], Iterable[bytes]]
"""Yields the plain bytes of an object of the backup."""


@dataclass(frozen=True)
class StoredSegment:
    """Rows of a table, and the object that they lie in."""

    object_name: str
    table: Table
    rows: int
    size_bytes: int


def require_empty(server: Server) -> None:
    """Check that the database holds no table, view or sequence of anybody's.

    Raises:
        ConflictError: it does; the message says how many and names some.
    """
    with server.connect() as connection:
        rows = connection.execute(
            "SELECT n.nspname || '.' || c.relname FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' "
            "AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND NOT EXISTS ("
            "SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass "
            "AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 1"
        ).fetchall()
    if rows:
        names = ", ".join(name for (name,) in rows[:3])
        message = (
            f"the database {server.database} is not empty ({len(rows)} relations, such as "
            f"{names}): restore into another one (--into), or drop this one (--drop)"
        )
        raise ConflictError(message)


def create_database(server: Server) -> None:
    """Make the database where it is missing."""
    name = sql.Identifier(server.database)
    with server.with_database("postgres").connect() as connection:
        known = connection.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", (server.database,)
        ).fetchone()
        if known is None:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(name))


def restore_globals(server: Server, script: str) -> list[str]:
    """Create the roles that are missing, with their settings; return their names.

    A role that exists keeps its password and its rights: a restore into a living server must not
    change who may enter it. Memberships are granted where both roles exist.
    """
    with server.connect() as connection:
        known = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles").fetchall()}
        created: list[str] = []
        for statement in _statements(script):
            match = _ROLE.match(statement)
            name = match[1].strip('"').replace('""', '"') if match else None
            if name in known or (name is None and not statement.startswith("GRANT ")):
                continue
            try:
                connection.execute(statement.encode())
            except (psycopg.errors.DuplicateObject, psycopg.errors.UndefinedObject):
                continue  # somebody made it meanwhile, or a membership names one that is not here
            except psycopg.errors.InsufficientPrivilege as error:
                message = f"the role may not create roles: {error.diag.message_primary}"
                raise BackupError(message) from error
            if statement.startswith("CREATE ROLE ") and name is not None:
                created.append(name)
    return created


def restore_properties(server: Server, statements: Iterable[str]) -> list[str]:
    """Give the database the settings, rights and comment of the one in the backup.

    Returns what the server refused, in words: a database without one of these still holds all.
    """
    refused: list[str] = []
    name = sql.Identifier(server.database)
    with server.connect() as connection:
        for statement in statements:
            found = _OF_DATABASE.match(statement)
            if found is None:
                continue
            own = f"{found[1]} {name.as_string(connection)}{statement[found.end() :]}"
            try:
                connection.execute(own.encode())
            except psycopg.Error as error:
                reason = error.diag.message_primary or type(error).__name__
                refused.append(f"of the database itself was not restored: {own} ({reason})")
    return refused


@dataclass(frozen=True)
class SchemaArchive:
    """The definitions of a backup, in a file that pg_restore can read more than once.

    What is chosen of it is written beside it for a moment.
    """

    path: Path
    tools: PostgresTools

    def restore(
        self,
        server: Server,
        *,
        section: str,
        jobs: int = 1,
        entries: Sequence[str] | None = None,
        memory_mib: int | None = None,
    ) -> None:
        """Run one section of it, or some of its entries.

        Raises:
            BackupError: the server refused a statement.
        """
        options: dict[str, str] = {"statement_timeout": "0", "lock_timeout": "0"}
        if memory_mib is not None:
            options["maintenance_work_mem"] = f"{memory_mib}MB"
        with tempfile.NamedTemporaryFile("w", suffix=".list", dir=self.path.parent) as chosen:
            command = [
                self.tools.path("pg_restore"),
                "--exit-on-error",
                f"--dbname={server.database}",
                f"--section={section}",
                f"--jobs={jobs}",
            ]
            if entries is not None:
                chosen.write("\n".join(entries) + "\n")
                chosen.flush()
                command.append(f"--use-list={chosen.name}")
            run_tool([*command, str(self.path)], server.environment(**options))

    def entries(self, *options: str) -> list[str]:
        """Return the lines of its table of contents, as pg_restore prints and takes them."""
        command = [self.tools.path("pg_restore"), "--list", *options, str(self.path)]
        listing = run_tool(command, _no_server())
        return [line for line in listing.decode().splitlines() if line and line[0] != ";"]

    def properties(self) -> list[str]:
        """Return the statements about the database itself, under the name that it had."""
        entries = [line for line in self.entries("--create") if " DATABASE " in line]
        return list(_statements(self.script(entries, "--create"))) if entries else []

    def script(self, entries: Sequence[str], *options: str) -> str:
        """Return the SQL of some entries."""
        with tempfile.NamedTemporaryFile("w", suffix=".list", dir=self.path.parent) as chosen:
            chosen.write("\n".join(entries) + "\n")
            chosen.flush()
            command = [
                self.tools.path("pg_restore"),
                "--file=-",
                f"--use-list={chosen.name}",
                *options,
                str(self.path),
            ]
            return run_tool(command, _no_server()).decode()

    def graphs(self) -> dict[str, str]:
        """Return the statement of each approximate index by its line in the contents."""
        contents = self.entries()
        lines = {match[1]: line for line in contents if (match := _LISTED.match(line))}
        if not lines:
            return {}
        statements = {
            _index_name(statement): statement
            for statement in _statements(self.script(list(lines.values())))
            # A part of a partitioned table's index is attached in its turn, with the others.
            if _GRAPH.search(statement) and " ON ONLY " not in statement
        }
        attached = {line.split()[-2] for line in contents if " INDEX ATTACH " in line}
        return {
            line: statements[name]
            for name, line in lines.items()
            if name in statements and name not in attached
        }


def load_segments(
    server: Server,
    segments: Sequence[StoredSegment],
    read: Read,
    control: Control,
    *,
    jobs: int,
) -> int:
    """Write the rows of all segments with `jobs` connections; return how many.

    Triggers, keys and indexes do not exist yet, so nothing looks at a row twice.

    Raises:
        BackupCorruptError: the server took another number of rows than the backup says.
    """
    connections = _PerThread(server)

    def load(segment: StoredSegment) -> int:
        rows = copy_in(connections.get(), segment.table, control.watch(read(segment.object_name)))
        if rows != segment.rows:
            message = f"{segment.object_name} has {rows} rows where the backup says {segment.rows}"
            raise BackupCorruptError(message)
        return rows

    try:
        ordered = sorted(segments, key=lambda segment: -segment.size_bytes)
        return sum(run_parallel(load, ordered, jobs, control))
    finally:
        connections.close()


def set_sequences(connection: psycopg.Connection, sequences: Iterable[SequencePlace]) -> None:
    """Let each sequence go on where it stood."""
    for sequence in sequences:
        connection.execute(
            "SELECT setval(%s::regclass, %s, %s)",
            (
                sql.Identifier(sequence.schema, sequence.name).as_string(connection),
                sequence.last,
                sequence.called,
            ),
        )


def refresh_views(connection: psycopg.Connection, views: Iterable[tuple[str, str]]) -> None:
    """Fill the materialised views again that were filled."""
    for schema, name in views:
        connection.execute(
            sql.SQL("REFRESH MATERIALIZED VIEW {}").format(sql.Identifier(schema, name))
        )


def restore_large_objects(
    server: Server, tools: PostgresTools, blocks: Iterable[bytes], control: Control
) -> None:
    """Stream the archive of large objects into the database."""
    command = [
        tools.path("pg_restore"),
        "--exit-on-error",
        "--data-only",
        f"--dbname={server.database}",
    ]
    with running(command, server.environment(), writable=True) as process:
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        for block in control.watch(blocks):
            process.stdin.write(block)


def build_graph(server: Server, statement: str, memory_mib: int) -> None:
    """Build one approximate index with that much memory, so that its graph fits."""
    with server.connect(maintenance_work_mem=f"{memory_mib}MB") as connection:
        # The archive's statements are run with an empty search path.
        connection.execute(statement.encode())


def graph_memory_mib(server: Server, statement: str, ceiling_mib: int | None = None) -> int:
    """Return the memory that a graph over the statement's table needs, within what there is."""
    match = re.search(r" ON (?:ONLY )?(\S+) USING", statement)
    size = rows = 0
    if match:
        with server.connect() as connection:
            row = connection.execute(
                "SELECT pg_table_size(oid), greatest(reltuples, 0)::bigint FROM pg_class "
                "WHERE oid = %s::regclass",
                (match[1],),
            ).fetchone()
            size, rows = (0, 0) if row is None else row
    links = re.search(r"\bm='?(\d+)", statement)
    m = int(links[1]) if links else _DEFAULT_M
    needed = int((size * _VECTOR_FACTOR + rows * (m * _LINK_BYTES + _NODE_BYTES)) / _MIB) + 1
    most = ceiling_mib or int(psutil.virtual_memory().available * _MEMORY_SHARE / _MIB)
    return max(_LEAST_MEMORY_MIB, min(needed, most))


class _PerThread:
    """A connection for each thread that asks; all are closed together."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._local = threading.local()
        self._lock = threading.Lock()
        self._opened: list[psycopg.Connection] = []

    def get(self) -> psycopg.Connection:
        """Return this thread's connection."""
        connection: psycopg.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._server.connect(synchronous_commit="off")
            self._local.connection = connection
            with self._lock:
                self._opened.append(connection)
        return connection

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for connection in self._opened:
                connection.close()


def _no_server() -> dict[str, str]:
    return {"LC_ALL": "C.UTF-8"}


def _index_name(statement: str) -> str:
    match = re.match(r'CREATE (?:UNIQUE )?INDEX (?:CONCURRENTLY )?("(?:[^"]|"")+"|\S+)', statement)
    return match[1].strip('"') if match else ""


def _statements(script: str) -> Iterator[str]:
    # As pg_dump writes them: one statement ends with a semicolon at the end of a line, and lines
    # for psql begin with a backslash.
    lines: list[str] = []
    for line in script.splitlines():
        if not lines and (not line or line.startswith(("--", "\\"))):
            continue
        lines.append(line)
        if line.endswith(";"):
            yield "\n".join(lines)
            lines = []
