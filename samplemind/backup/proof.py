"""The levels of verification that need more than sums: L2 decodes, L3 restores.

L2 reads every stream to its end and counts what is in it. L3 restores the backup into scratch
servers of its own and asks them: rows, fingerprints, sequences, extensions, the server's own check
of every table against every B-tree, and a nearest-neighbour query.

Invariant: a problem is a sentence in the result, never an exception that hides the next one; only
what keeps the whole level from running (no key, a store that is away) is raised.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from samplemind.backup import mongo as mongo_store
from samplemind.backup.control import Control
from samplemind.backup.encryption import DataKey
from samplemind.backup.manifest import Manifest, PostgresRecord, TableRecord
from samplemind.backup.objects import ObjectReader
from samplemind.backup.parallel import run_parallel
from samplemind.backup.postgres_tools import Server, find_tools, run_tool, running, server_major
from samplemind.backup.relations import fingerprint, list_extensions, list_sequences
from samplemind.backup.restore import Choice, Target, restore_backup, table_of
from samplemind.backup.scratch import (
    RecoveryTarget,
    give_to_account,
    recovered_server,
    scratch_servers,
)
from samplemind.backup.verification import verify_checksums
from samplemind.backup.workspace import workspace
from samplemind.endpoints import Store
from samplemind.errors import BackupCorruptError, BackupError, PermanentError
from samplemind.settings import MongoSettings
from samplemind.storage.store import ObjectStore

_COPY_HEADER = struct.Struct("!11sii")
_COPY_SIGNATURE = b"PGCOPY\n\xff\r\n\x00"
_FIELDS = struct.Struct("!h")
_LENGTH = struct.Struct("!i")
_DATABASE = "samplemind"


def verify_decoded(
    store: ObjectStore, manifest: Manifest, data_key: DataKey | None, control: Control
) -> list[str]:
    """Decode every object whole and count what is in it (L2); return the problems."""
    problems = verify_checksums(store, manifest, data_key, decode=True, progress=control.passed)
    if problems:
        return problems
    reader = ObjectReader(store, manifest.id, data_key)
    counts: list[Callable[[], str | None]] = []
    if manifest.postgres is not None:
        counts += [
            _counting(manifest, reader, segment.object, segment.rows, binary=table.binary)
            for table in manifest.postgres.tables
            for segment in table.segments
        ]
        counts += [
            _reading_archive(manifest, reader, name)
            for name in (manifest.postgres.schema_object, manifest.postgres.dump_object)
            if name is not None
        ]
    control.begin("counting", len(counts))
    found = run_parallel(lambda count: count(), counts, 2, control)
    problems += [problem for problem in found if problem is not None]
    return problems + _count_documents(manifest, reader)


def verify_restored(
    store: ObjectStore,
    manifest: Manifest,
    data_key: DataKey | None,
    control: Control,
    *,
    source: Server | None = None,
    unpack: Callable[[Path], None] | None = None,
) -> list[str]:
    """Restore the backup into scratch servers and question them (L3); return the problems.

    Args:
        store: where the objects lie.
        manifest: of the backup.
        data_key: what opens its objects.
        control: cancellation and progress.
        source: whose user and password a recovered base backup is asked with; never connected to.
        unpack: fills a directory with a base backup and all that it stands on.
    """
    reader = ObjectReader(store, manifest.id, data_key)
    try:
        if manifest.physical is not None:
            return _verify_base(unpack, control, source)
        with restored_scratch(manifest, reader, control) as (server, documents):
            return question(manifest, server, documents)
    except PermanentError as error:
        # A backup that cannot be restored is what this level is there to find.
        return [str(error)]


@contextmanager
def restored_scratch(
    manifest: Manifest, reader: ObjectReader, control: Control
) -> Iterator[tuple[Server, MongoSettings | None]]:
    """Restore a logical backup or a dump into scratch servers, without graphs, for the block."""
    stores = [Store.POSTGRES] + ([Store.MONGO] if manifest.mongo is not None else [])
    with scratch_servers(stores) as urls:
        server = Server(urls[Store.POSTGRES]).with_database(f"{_DATABASE}_proof")
        documents = None
        if manifest.mongo is not None:
            documents = MongoSettings.model_validate(
                {"url": urls[Store.MONGO], "database": manifest.mongo.database}
            )
            # Documents whose time is over would go while they are compared.
            with mongo_store.connect(documents) as client:
                client.admin.command({"setParameter": 1, "ttlMonitorEnabled": False})
        restore_backup(
            manifest, reader, Target(server, documents), Choice(defer_graphs=True), control
        )
        yield server, documents


def question(manifest: Manifest, server: Server, documents: MongoSettings | None) -> list[str]:
    """Compare a restored database with what the manifest says of it; return the problems."""
    problems: list[str] = []
    if manifest.postgres is not None:
        with server.connect() as connection:
            problems += _compare_tables(connection, manifest.postgres)
            problems += _compare_sequences(connection, manifest.postgres)
            problems += _compare_extensions(connection, manifest.postgres)
            problems += ask_neighbours(connection)
        problems += check_tables(server)
    if manifest.mongo is not None and documents is not None:
        with mongo_store.connect(documents) as client:
            database = client[documents.database]
            for each in manifest.mongo.collections:
                if each.view:
                    continue
                stored = mongo_store.stored_name(each.name, timeseries=each.timeseries)
                found = mongo_store.digest_collection(database, stored)
                if (found.documents, found.digest) != (each.documents, each.digest):
                    problems.append(f"collection {each.name} differs from what was backed up")
    return problems


def check_tables(server: Server) -> list[str]:
    """Let the server compare every table with every B-tree on it (pg_amcheck)."""
    with server.connect() as connection:
        tools = find_tools(server_major(connection), "pg_amcheck")
    command = [
        tools.path("pg_amcheck"),
        "--heapallindexed",
        "--install-missing",
        "--jobs=2",
        f"--database={server.database}",
    ]
    try:
        run_tool(command, server.environment())
    except BackupError as error:
        return [str(error)]
    return []


def ask_neighbours(connection: psycopg.Connection) -> list[str]:
    """Ask for the nearest neighbour of one vector, where there is any: it must be itself."""
    column = connection.execute(
        "SELECT a.attrelid::regclass::text, a.attname::text, t.typname::text FROM pg_attribute a "
        "JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid "
        "WHERE c.relkind = 'r' AND t.typname IN ('vector', 'halfvec') AND a.attnum > 0 "
        "AND NOT a.attisdropped ORDER BY c.reltuples DESC LIMIT 1"
    ).fetchone()
    if column is None:
        return []
    table, name, _ = column
    field = sql.Identifier(name)
    # The name came quoted from the server.
    place = sql.SQL(table)
    row = connection.execute(
        sql.SQL(
            "SELECT (SELECT o.{f} <-> p.{f} FROM {t} o WHERE o.{f} IS NOT NULL "
            "ORDER BY o.{f} <-> p.{f} LIMIT 1) FROM {t} p WHERE p.{f} IS NOT NULL LIMIT 1"
        ).format(f=field, t=place)
    ).fetchone()
    if row is not None and row[0] != 0:
        return [f"the nearest neighbour of a vector of {table} is not itself"]
    return []


def _verify_base(
    unpack: Callable[[Path], None] | None, control: Control, source: Server | None
) -> list[str]:
    if unpack is None or source is None:
        return ["a base backup is restored with the user and password of its source"]
    with workspace("base") as folder:
        folder.chmod(0o711)  # the server's account must get in
        data, wal = folder / "data", folder / "wal"
        data.mkdir(mode=0o700)
        wal.mkdir(mode=0o755)
        unpack(data)
        major = int((data / "PG_VERSION").read_text())
        verify = [find_tools(major, "pg_verifybackup").path("pg_verifybackup")]
        try:
            run_tool([*verify, "--no-parse-wal", str(data)], {"LC_ALL": "C.UTF-8"})
        except BackupError as error:
            return [str(error)]
        give_to_account(data)
        with recovered_server(
            data, source, RecoveryTarget(immediate=True), wal, control, durable=False
        ) as (server, _):
            with server.connect() as connection:
                problems = ask_neighbours(connection)
            return problems + check_tables(server)


def _compare_tables(connection: psycopg.Connection, record: PostgresRecord) -> Iterator[str]:
    for table in record.tables:
        name = f"{table.schema_name}.{table.name}"
        counted = connection.execute(
            sql.SQL("SELECT count(*) FROM ONLY {}").format(
                sql.Identifier(table.schema_name, table.name)
            )
        ).fetchone()
        if counted is None or counted[0] != table.rows:
            yield f"{name} has {counted and counted[0]} rows instead of {table.rows}"
        elif not _same_rows(connection, table):
            yield f"{name} has other rows than were backed up"


def _same_rows(connection: psycopg.Connection, table: TableRecord) -> bool:
    expected = table.fingerprint
    if expected is None:
        return True
    found = fingerprint(connection, table_of(table), expected.modulus)
    return (found.rows, found.digest) == (expected.rows, expected.digest)


def _compare_sequences(connection: psycopg.Connection, record: PostgresRecord) -> Iterator[str]:
    places = {
        (each.schema, each.name): (each.last, each.called) for each in list_sequences(connection)
    }
    for expected in record.sequences:
        found = places.get((expected.schema_name, expected.name))
        if found != (expected.last, expected.called):
            yield f"sequence {expected.schema_name}.{expected.name} stands at {found}"


def _compare_extensions(connection: psycopg.Connection, record: PostgresRecord) -> Iterator[str]:
    there = list_extensions(connection)
    for name, version in record.extensions.items():
        if name not in there:
            yield f"extension {name} is missing"
        elif there[name] != version:
            yield f"extension {name} has version {there[name]} instead of {version}"


def _counting(
    manifest: Manifest, reader: ObjectReader, name: str, rows: int, *, binary: bool
) -> Callable[[], str | None]:
    def count() -> str | None:
        blocks = reader.read(manifest.object(name))
        try:
            found = count_binary_rows(blocks) if binary else count_text_rows(blocks)
        except BackupCorruptError as error:
            return f"{name}: {error}"
        return None if found == rows else f"{name} has {found} rows instead of {rows}"

    return count


def count_text_rows(blocks: Iterable[bytes]) -> int:
    """Return the rows of a stream of COPY in text: a line each, as line ends within are escaped."""
    return sum(block.count(b"\n") for block in blocks)


def count_binary_rows(blocks: Iterable[bytes]) -> int:
    """Return the rows of a stream of COPY in binary (PostgreSQL manual, COPY, file formats).

    Raises:
        BackupCorruptError: it is no such stream, or it ends before its trailer.
    """
    stream = _Bytes(blocks)
    signature, _, extension = _COPY_HEADER.unpack(stream.take(_COPY_HEADER.size))
    if signature != _COPY_SIGNATURE:
        message = "it is no stream of COPY in binary"
        raise BackupCorruptError(message)
    stream.take(extension)
    rows = 0
    while (fields := _FIELDS.unpack(stream.take(_FIELDS.size))[0]) >= 0:
        for _ in range(fields):
            stream.take(max(0, _LENGTH.unpack(stream.take(_LENGTH.size))[0]))
        rows += 1
    return rows


def _reading_archive(
    manifest: Manifest, reader: ObjectReader, name: str
) -> Callable[[], str | None]:
    def read() -> str | None:
        assert manifest.postgres is not None  # noqa: S101 - the name came from it
        tools = find_tools(int(manifest.postgres.tool_version), "pg_restore")
        try:
            # Reads all of it and writes SQL to nowhere: --list stops after the contents.
            command = [tools.path("pg_restore"), "--file=/dev/null"]
            with running(command, {"LC_ALL": "C.UTF-8"}, writable=True) as process:
                assert process.stdin is not None  # noqa: S101 - a pipe was asked for
                for block in reader.read(manifest.object(name)):
                    process.stdin.write(block)
        except BackupError as error:
            return f"{name}: {error}"
        return None

    return read


def _count_documents(manifest: Manifest, reader: ObjectReader) -> list[str]:
    problems = []
    for each in manifest.mongo.collections if manifest.mongo is not None else ():
        if each.object is None:
            continue
        digest = mongo_store.DocumentDigest()
        try:
            for raw in mongo_store.split_documents(reader.read(manifest.object(each.object))):
                digest.add(raw)
        except BackupCorruptError as error:
            problems.append(f"{each.object}: {error}")
            continue
        if (digest.documents, digest.digest) != (each.documents, each.digest):
            problems.append(f"{each.object} holds other documents than were backed up")
    return problems


class _Bytes:
    """Takes exact numbers of bytes from a stream of blocks."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._held = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return the next bytes.

        Raises:
            BackupCorruptError: the stream ends before.
        """
        while len(self._held) - self._at < size:
            block = next(self._blocks, None)
            if block is None:
                message = "the stream ends too early"
                raise BackupCorruptError(message)
            self._held = self._held[self._at :] + block
            self._at = 0
        taken = self._held[self._at : self._at + size]
        self._at += size
        return taken
