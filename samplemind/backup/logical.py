"""The logical class: schema by pg_dump, rows by parallel COPY, all of one exported snapshot.

Each table becomes one stream, or several over ranges of its pages, so that two processors dump a
large table and four restore it, straight to and from the store.

Invariant: a segment's row count is the server's own word for what it sent, and the ranges of a
table cover every page once. Nothing is buffered beyond one block.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

import psycopg
from psycopg import pq, sql

from samplemind.backup.postgres_tools import PostgresTools, Server, output_of, run_tool
from samplemind.backup.relations import Table
from samplemind.backup.snapshot import Snapshot, join_snapshot
from samplemind.errors import BackupError, StoreUnavailableError

RANGE_BYTES = 128 * 2**20
"""Bytes of a table's pages in one segment."""

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Segment:
    """The rows of a table on pages first..before `end`; none: to its end, however it grew."""

    table: Table
    number: int
    first: int
    end: int | None
    whole: bool
    """Whether it is all of the table."""
    expected_bytes: int

    @property
    def name(self) -> str:
        """The object's name below its backup, without anything that a store might mistake."""
        schema, name = (quote(part, safe="") for part in (self.table.schema, self.table.name))
        return f"postgres/data/{schema}.{name}.{self.number:05d}"

    def statement(self) -> sql.Composed:
        """Return the COPY that reads it."""
        columns = _columns(self.table)
        form = sql.SQL("(FORMAT binary)" if self.table.binary else "(FORMAT text)")
        if not self.table.columns:
            # COPY t () is no syntax; rows without a column still count.
            return sql.SQL("COPY (SELECT FROM ONLY {}) TO STDOUT {}").format(
                self.table.identifier, form
            )
        if self.whole:
            return sql.SQL("COPY (SELECT {} FROM ONLY {}) TO STDOUT {}").format(
                columns, self.table.identifier, form
            )
        where = sql.SQL("ctid >= {}::tid").format(sql.Literal(f"({self.first},0)"))
        if self.end is not None:
            where += sql.SQL(" AND ctid < {}::tid").format(sql.Literal(f"({self.end},0)"))
        return sql.SQL("COPY (SELECT {} FROM ONLY {} WHERE {}) TO STDOUT {}").format(
            columns, self.table.identifier, where, form
        )


def plan_segments(tables: Iterable[Table], range_bytes: int = RANGE_BYTES) -> list[Segment]:
    """Cut the tables into segments of about `range_bytes`, the largest first.

    The large ones first keep all jobs busy to the end. The last range of a table is open, so that
    pages which were added after its size was read are in it.
    """
    segments: list[Segment] = []
    for table in tables:
        # What is stored out of line is fetched with its row.
        parts = max(1, round(table.size_bytes / range_bytes)) if table.pages else 1
        step = max(1, -(-table.pages // parts))
        starts = list(range(0, max(1, table.pages), step))
        segments += [
            Segment(
                table=table,
                number=number,
                first=first,
                end=first + step if number + 1 < len(starts) else None,
                whole=len(starts) == 1,
                expected_bytes=table.size_bytes // len(starts),
            )
            for number, first in enumerate(starts)
        ]
    return sorted(segments, key=lambda segment: -segment.expected_bytes)


def dump_schema(snapshot: Snapshot, tools: PostgresTools) -> Iterator[bytes]:
    """Yield the definitions of everything, as a pg_dump archive that pg_restore reads."""
    command = [
        tools.path("pg_dump"),
        "--format=custom",
        "--compress=none",
        "--schema-only",
        f"--snapshot={snapshot.id}",
    ]
    return output_of(command, snapshot.server.environment())


def dump_large_objects(snapshot: Snapshot, tools: PostgresTools) -> Iterator[bytes]:
    """Yield the large objects, as a pg_dump archive."""
    command = [
        tools.path("pg_dump"),
        "--format=custom",
        "--compress=none",
        "--data-only",
        "--large-objects",
        "--exclude-table=*.*",
        f"--snapshot={snapshot.id}",
    ]
    return output_of(command, snapshot.server.environment())


def dump_globals(server: Server, tools: PostgresTools) -> Iterator[bytes]:
    """Yield roles, their memberships and tablespaces as SQL.

    Only a superuser may read the roles' password hashes; for another role they are left out.
    """
    with server.connect() as connection:
        row = connection.execute(
            "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    command = [tools.path("pg_dumpall"), "--globals-only"]
    if row is None or not row[0]:
        command.append("--no-role-passwords")
    yield run_tool(command, server.environment())


class CopyOut:
    """One segment as a stream; `rows` is the server's count once the stream has ended."""

    def __init__(self, connection: psycopg.Connection, segment: Segment) -> None:
        """Take a connection that has joined the snapshot."""
        self._connection = connection
        self._segment = segment
        self.rows = 0

    def __iter__(self) -> Iterator[bytes]:
        # The driver's own iteration costs half as much again for each row.
        server = self._connection.pgconn
        begun = server.exec_(self._segment.statement().as_bytes(self._connection))
        if begun.status != pq.ExecStatus.COPY_OUT:
            raise _refused(begun)
        parts: list[bytes] = []
        size = 0
        while True:
            try:
                length, row = server.get_copy_data(0)
            except psycopg.OperationalError as error:
                message = "PostgreSQL stopped sending rows: the connection was lost"
                raise StoreUnavailableError(message) from error
            if length <= 0:
                break
            parts.append(bytes(row))
            size += length
            if size >= _BLOCK_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
        if parts:
            yield b"".join(parts)
        self._finish(length)

    def _finish(self, length: int) -> None:
        result = self._connection.pgconn.get_result()
        if length == -2 or result is None or result.status != pq.ExecStatus.COMMAND_OK:
            raise _refused(result)
        self.rows = result.command_tuples or 0
        while self._connection.pgconn.get_result() is not None:
            pass  # the protocol's end of the statement


def copy_in(connection: psycopg.Connection, table: Table, blocks: Iterable[bytes]) -> int:
    """Write a segment's stream into a table; return how many rows the server took.

    Raises:
        BackupError: the server refused it; nothing of the segment is there then.
    """
    if not table.columns:
        statement = sql.SQL("COPY {} FROM STDIN").format(table.identifier)
    else:
        statement = sql.SQL("COPY {} ({}) FROM STDIN {}").format(
            table.identifier,
            _columns(table),
            sql.SQL("(FORMAT binary)" if table.binary else "(FORMAT text)"),
        )
    try:
        with connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                for block in blocks:
                    copy.write(block)
            return cursor.rowcount
    except psycopg.OperationalError as error:
        message = f"the connection was lost while {table.qualified_name} was restored"
        raise StoreUnavailableError(message) from error
    except psycopg.Error as error:
        # The driver's text would quote the row.
        message = f"{table.qualified_name} was not restored: {error.diag.message_primary}"
        raise BackupError(message) from error


class SnapshotReader:
    """A connection of one dumping thread inside the snapshot; opened at its first use."""

    def __init__(self, server: Server, snapshot_id: str) -> None:
        self._server = server
        self._snapshot_id = snapshot_id
        self._connection: psycopg.Connection | None = None

    @property
    def connection(self) -> psycopg.Connection:
        """The connection, which sees what the snapshot sees."""
        if self._connection is None:
            connection = self._server.connect()
            join_snapshot(connection, self._snapshot_id)
            self._connection = connection
        return self._connection

    def close(self) -> None:
        """Close it; repeating it is harmless."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _columns(table: Table) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in table.columns)


def _refused(result: "pq.abc.PGresult | None") -> Exception:
    if result is None:
        return StoreUnavailableError("the connection was lost while rows were read")
    said = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY)
    state = result.error_field(pq.DiagnosticField.SQLSTATE)
    text = said.decode(errors="replace") if said else "no reason given"
    if state is None or state[:2] in (b"08", b"57"):
        return StoreUnavailableError(f"PostgreSQL stopped sending rows: {text}")
    return BackupError(f"PostgreSQL refused to send rows: {text}")
