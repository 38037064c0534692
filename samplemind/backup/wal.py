"""WAL for point-in-time recovery: received through a slot, stored segment by segment.

`pg_receivewal` catches up to where the server is and ends; then every whole segment is stored and
forgotten here. The replication slot keeps what was not received, so nothing is lost between two
runs, and no setting of the server needs a restart.

Invariant: a segment is removed from the spool only after it is in the store; a segment once stored
never changes. What is missing between two segments is found by `find_gap` before a recovery begins.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psycopg

from samplemind.backup.physical import inserted_lsn
from samplemind.backup.postgres_tools import PostgresTools, Server, run_tool
from samplemind.errors import BackupError, PermanentError

SLOT = "samplemind_wal"

_SEGMENT = re.compile(r"[0-9A-F]{24}")
_HISTORY = re.compile(r"[0-9A-F]{8}\.history")
_ID_BYTES = 1 << 32


@dataclass(frozen=True, order=True)
class WalSegment:
    """One file of WAL: its timeline and its number since the beginning of time."""

    timeline: int
    number: int

    @classmethod
    def parse(cls, name: str, segment_bytes: int) -> "WalSegment":
        """Read a file's name."""
        each = _ID_BYTES // segment_bytes
        return cls(int(name[:8], 16), int(name[8:16], 16) * each + int(name[16:], 16))

    @classmethod
    def at(cls, lsn: str, timeline: int, segment_bytes: int) -> "WalSegment":
        """Return the segment that holds a position."""
        return cls(timeline, parse_lsn(lsn) // segment_bytes)

    def file_name(self, segment_bytes: int) -> str:
        """Return the file's name as PostgreSQL writes it."""
        each = _ID_BYTES // segment_bytes
        return f"{self.timeline:08X}{self.number // each:08X}{self.number % each:08X}"

    def next(self) -> "WalSegment":
        """Return the one after it on the same timeline."""
        return WalSegment(self.timeline, self.number + 1)


@dataclass(frozen=True)
class ArchiveLag:
    """How far the archive is behind the server."""

    slot_bytes: int
    """WAL that the server keeps because it was not received yet."""
    current_lsn: str
    received_lsn: str | None


def parse_lsn(text: str) -> int:
    """Return a position in WAL as a number of bytes."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def is_wal_name(name: str) -> bool:
    """Tell whether a file is a whole segment or the history of a timeline."""
    return _SEGMENT.fullmatch(name) is not None or _HISTORY.fullmatch(name) is not None


def is_segment_name(name: str) -> bool:
    """Tell whether a file is a whole segment."""
    return _SEGMENT.fullmatch(name) is not None


def ensure_slot(server: Server) -> None:
    """Make the slot that keeps WAL until it is received; from here on there is no gap.

    Raises:
        PermanentError: the role may not, or no slot is free.
    """
    try:
        with server.connect() as connection:
            connection.execute(
                "SELECT pg_create_physical_replication_slot(%s, true) WHERE NOT EXISTS "
                "(SELECT FROM pg_replication_slots WHERE slot_name = %s)",
                (SLOT, SLOT),
            )
    except psycopg.errors.DuplicateObject:
        return  # somebody made it at the same moment
    except psycopg.Error as error:
        message = f"no replication slot for the archive: {error.diag.message_primary}"
        raise PermanentError(message) from error


def drop_slot(server: Server) -> None:
    """Let the server forget WAL that nobody receives any more."""
    with server.connect() as connection:
        connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            "WHERE slot_name = %s AND NOT active",
            (SLOT,),
        )


def read_lag(server: Server) -> ArchiveLag | None:
    """Return how far the archive is behind; none where no archive was begun."""
    with server.connect() as connection:
        row = connection.execute(
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint, "
            "pg_current_wal_lsn()::text, restart_lsn::text, wal_status "
            "FROM pg_replication_slots WHERE slot_name = %s",
            (SLOT,),
        ).fetchone()
    if row is None:
        return None
    size, current, received, status = row
    if status == "lost":
        message = (
            "the server has removed WAL that the archive had not received (see "
            "max_slot_wal_keep_size): take a new physical backup"
        )
        raise BackupError(message)
    return ArchiveLag(slot_bytes=max(0, size or 0), current_lsn=current, received_lsn=received)


def receive(server: Server, tools: PostgresTools, spool: Path) -> None:
    """Bring everything that was committed until now into the spool, in whole segments.

    The server begins a new segment where the present one holds something, so that what is stored
    is never behind by a part of one.
    """
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    with server.connect() as connection:
        _forget_foreign(connection, spool)
        # A commit at the end of what is stored: recovery to any moment before it knows that it
        # has come far enough.
        connection.execute("SELECT pg_logical_emit_message(true, 'samplemind', 'archive')")
        connection.execute("SELECT pg_switch_wal()")
        end = inserted_lsn(connection)
        # The first record of the new segment: the receiver ends at what lies beyond `end`, and
        # would wait for it until the server's next sign of life, ten seconds later.
        connection.execute("SELECT pg_logical_emit_message(true, 'samplemind', 'archive')")
    run_tool(
        [
            tools.path("pg_receivewal"),
            f"--directory={spool}",
            f"--slot={SLOT}",
            f"--endpos={end}",
            "--no-loop",
            "--synchronous",
            "--no-password",
        ],
        server.environment(),
    )


def _forget_foreign(connection: psycopg.Connection, spool: Path) -> None:
    """Remove what the receiver began of a server that was restored since, or failed over.

    It would go on where that ends, although the present server never came there. Without it it
    goes on where the slot says, which keeps all that is not stored.
    """
    row = connection.execute("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").fetchone()
    current = str(row[0]) if row else ""
    for begun in spool.glob("*.partial"):
        if begun.name[:8] != current[:8] or begun.name > f"{current}.partial":
            begun.unlink()


def store_spool(spool: Path, store: Callable[[str, Path], None]) -> int:
    """Store every whole file of the spool, oldest first, and remove it; return how many."""
    files = sorted(path for path in spool.iterdir() if is_wal_name(path.name))
    for path in files:
        store(path.name, path)
        path.unlink()
    return len(files)


def find_gap(
    names: Iterable[str], first: WalSegment, last: WalSegment | None, segment_bytes: int
) -> tuple[WalSegment | None, WalSegment | None]:
    """Return the first segment that is missing from `first` on, and the last that is there.

    Args:
        names: of the files in the archive.
        first: where recovery begins.
        last: up to where WAL is needed; none: a gap is what has segments after it.
        segment_bytes: the size of each.
    """
    there = {
        segment.number
        for name in names
        if _SEGMENT.fullmatch(name)
        and (segment := WalSegment.parse(name, segment_bytes)).timeline == first.timeline
    }
    wanted_until = max(there, default=first.number - 1) if last is None else last.number
    for number in range(first.number, wanted_until + 1):
        if number not in there:
            reached = WalSegment(first.timeline, number - 1) if number > first.number else None
            return WalSegment(first.timeline, number), reached
    reached = WalSegment(first.timeline, wanted_until) if wanted_until >= first.number else None
    return None, reached
