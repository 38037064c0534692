"""The physical class: the server's own base backup as one stream, and what it needs to be used.

Invariant: a base backup holds the WAL that makes it consistent, so it can be restored where the
archive is lost; and its `backup_manifest` is kept beside it, because the next incremental backup
is made against it. An incremental holds the blocks that changed since, and is unpacked together
with everything that it stands on, never alone.
"""

import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import psycopg

from samplemind.backup.postgres_tools import PostgresTools, Server, output_of, run_tool
from samplemind.errors import (
    BackupCorruptError,
    BackupError,
    MissingToolError,
    PermanentError,
)

_BLOCK = 512
_MANIFEST = "backup_manifest"
_FIRST_WITH_LINKS = 18


@dataclass(frozen=True)
class BaseFacts:
    """What the server says of itself when a base backup begins."""

    server_version: str
    major: int
    system_identifier: str
    timeline: int
    lsn: str
    segment_bytes: int
    database_bytes: int
    summarizes: bool
    """Whether WAL is summarised, without which no incremental backup can be made."""
    summarized_since: str | None = None
    """From where on there are summaries of this timeline; none: there are none."""


def read_facts(server: Server) -> BaseFacts:
    """Ask the server what a base backup must know.

    Raises:
        PermanentError: it writes too little WAL, has more tablespaces, or the role may not.
    """
    with server.connect() as connection:
        row = connection.execute(
            "SELECT current_setting('server_version'), s.system_identifier::text, "
            "c.timeline_id, pg_current_wal_lsn()::text, "
            "(SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'), "
            "(SELECT sum(pg_database_size(oid)) FROM pg_database), "
            "coalesce(current_setting('summarize_wal', true), 'off') = 'on', "
            "current_setting('wal_level'), (SELECT count(*) FROM pg_tablespace), "
            "(SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user) "
            "FROM pg_control_system() s, pg_control_checkpoint() c"
        ).fetchone()
        assert row is not None  # noqa: S101 - each function returns one row
        major = connection.info.server_version // 10_000
        since = _summarized_since(connection, row[2]) if row[6] else None
    version, system, timeline, lsn, segment, size, summarizes, level, spaces, allowed = row
    if level == "minimal":
        message = "wal_level is minimal: physical backups need replica (a restart of the server)"
        raise PermanentError(message)
    if spaces > 2:  # pg_default and pg_global
        message = "the server has tablespaces of its own, which one stream cannot hold"
        raise PermanentError(message)
    if not allowed:
        message = "the role needs the REPLICATION attribute for physical backups"
        raise PermanentError(message)
    return BaseFacts(version, major, system, timeline, lsn, segment, int(size), summarizes, since)


def _summarized_since(connection: psycopg.Connection, timeline: int) -> str | None:
    row = connection.execute(
        "SELECT coalesce((SELECT min(start_lsn) FROM pg_available_wal_summaries() WHERE tli = %s),"
        " (SELECT summarized_lsn FROM pg_get_wal_summarizer_state() WHERE summarized_tli = %s)"
        ")::text",
        (timeline, timeline),
    ).fetchone()
    return None if row is None else row[0]


def base_backup(
    server: Server,
    tools: PostgresTools,
    *,
    rate_bytes_per_s: int | None = None,
    parent_manifest: Path | None = None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[bytes]:
    """Yield a base backup of the whole server as one tar, with the WAL that it needs.

    Args:
        server: whichever database is named, all of them are in it.
        tools: of the server's very major version.
        rate_bytes_per_s: the most that the server may read, by its own limit.
        parent_manifest: the `backup_manifest` of the backup that this one is incremental to.
        check: called between blocks; what it raises stops the backup.
    """
    command = [
        tools.path("pg_basebackup"),
        "--format=tar",
        "--pgdata=-",
        "--wal-method=fetch",
        "--checkpoint=fast",
        "--no-password",
        # The stream is hashed here; the server's own SHA-256 is several times slower.
        "--manifest-checksums=CRC32C",
    ]
    if rate_bytes_per_s is not None:
        command.append(f"--max-rate={max(32, rate_bytes_per_s // 1024)}k")
    if parent_manifest is not None:
        command.append(f"--incremental={parent_manifest}")
    return output_of(command, server.environment(), check=check)


class ManifestTap:
    """Passes a tar on and keeps a copy of the `backup_manifest` in it."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = blocks
        self.manifest: bytes | None = None

    def __iter__(self) -> Iterator[bytes]:
        parser = _TarScan(_MANIFEST)
        for block in self._blocks:
            parser.feed(block)
            yield block
        self.manifest = parser.content()
        if self.manifest is None:
            message = "the base backup ended without its backup_manifest"
            raise BackupError(message)


def extract_base(blocks: Iterable[bytes], directory: Path) -> None:
    """Unpack a base backup into an empty directory.

    Raises:
        BackupCorruptError: the stream is no such archive, or wants to leave the directory.
        BackupError: the directory cannot take it.
    """
    try:
        reader = cast("IO[bytes]", _Reader(blocks))  # a stream is only read from
        with tarfile.open(fileobj=reader, mode="r|") as archive:
            archive.extractall(directory, filter="data")
    except (tarfile.TarError, EOFError) as error:
        message = f"the base backup cannot be unpacked: {error}"
        raise BackupCorruptError(message) from error
    except OSError as error:
        message = f"the base backup cannot be unpacked into {directory}: {error.strerror}"
        raise BackupError(message) from error
    if not (directory / "PG_VERSION").is_file():
        message = "the base backup holds no database cluster"
        raise BackupCorruptError(message)


def unpack_chain(
    streams: Sequence[Iterable[bytes]], directory: Path, programs: Callable[[int], PostgresTools]
) -> None:
    """Unpack a base backup, and the incrementals upon it, into an empty directory.

    The members of a chain lie beside the directory while they are put together, so that takes room
    for all of them; PostgreSQL 18 and newer link the files that did not change.

    Args:
        streams: the tar of each, the full one first.
        directory: new or empty.
        programs: gives the programs of a major version.

    Raises:
        BackupCorruptError: a stream is no such archive, or the chain does not fit together.
        MissingToolError: pg_combinebackup of the chain's version is missing.
    """
    if len(streams) == 1:
        extract_base(streams[0], directory)
        return
    with tempfile.TemporaryDirectory(prefix=".samplemind-chain-", dir=directory.parent) as name:
        parts = [Path(name) / str(number) for number in range(len(streams))]
        for part, blocks in zip(parts, streams, strict=True):
            part.mkdir(mode=0o700)
            extract_base(blocks, part)
        major = int((parts[-1] / "PG_VERSION").read_text())
        tools = programs(major)
        if tools.major != major:
            message = (
                f"pg_combinebackup {tools.major} does not fit PostgreSQL {major}: install "
                f"postgresql-{major}"
            )
            raise MissingToolError(message)
        command = [
            tools.path("pg_combinebackup"),
            f"--output={directory}",
            "--manifest-checksums=CRC32C",
            *(["--link"] if major >= _FIRST_WITH_LINKS else []),
            *map(str, parts),
        ]
        try:
            run_tool(command, {"LC_ALL": "C.UTF-8"})
        except BackupError as error:
            message = f"the incremental backup does not fit what it stands on: {error}"
            raise BackupCorruptError(message) from error


def start_lsn(directory: Path) -> tuple[str, int]:
    """Return where recovery begins by the backup's own label: LSN and timeline."""
    label = (directory / "backup_label").read_text()
    fields = dict(line.split(": ", 1) for line in label.splitlines() if ": " in line)
    return fields["START WAL LOCATION"].split()[0], int(fields["START TIMELINE"])


def flushed_lsn(connection: psycopg.Connection) -> str:
    """Return up to where the server has its WAL on disk."""
    row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    assert row is not None  # noqa: S101 - a function returns one row
    return str(row[0])


def inserted_lsn(connection: psycopg.Connection) -> str:
    """Return where the next record of WAL will stand."""
    row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
    assert row is not None  # noqa: S101 - a function returns one row
    return str(row[0])


class _TarScan:
    """Finds one file in a tar that passes by, whatever the size of the blocks."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._buffer = b""
        self._skip = 0
        self._wanted = 0
        self._found: list[bytes] = []
        self._seen = False

    def feed(self, block: bytes) -> None:
        """Look at the next bytes."""
        self._buffer += block
        while self._buffer:
            if self._wanted:
                part = self._buffer[: self._wanted]
                self._found.append(part)
                self._wanted -= len(part)
                self._buffer = self._buffer[len(part) :]
            elif self._skip:
                passed = min(self._skip, len(self._buffer))
                self._skip -= passed
                self._buffer = self._buffer[passed:]
            elif len(self._buffer) >= _BLOCK:
                self._header(self._buffer[:_BLOCK])
                self._buffer = self._buffer[_BLOCK:]
            else:
                return

    def content(self) -> bytes | None:
        """Return the file's bytes; none where it was not there, or not whole."""
        return b"".join(self._found) if self._seen and not self._wanted else None

    def _header(self, header: bytes) -> None:
        if not header.strip(b"\0"):
            return  # the end of an archive is blocks of zeros
        size = _tar_number(header[124:136])
        padding = -size % _BLOCK
        if header[:100].rstrip(b"\0").decode(errors="replace") == self._name:
            self._seen, self._wanted, self._skip = True, size, padding
        else:
            self._skip = size + padding


def _tar_number(field: bytes) -> int:
    # Octal digits, or (a first bit that is set) a large number in binary.
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ((1 << 87) - 1)
    return int(field.rstrip(b"\0 ") or b"0", 8)


class _Reader:
    """The file that tarfile reads a stream of blocks from."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Return that many bytes, fewer only at the end."""
        parts = [self._rest]
        held = len(self._rest)
        while held < size:
            block = next(self._blocks, None)
            if block is None:
                break
            parts.append(block)
            held += len(block)
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]
