"""Reading both stores into the objects of one backup, side by side.

Invariant: every object is written whole before its record exists, all streams are of the
barrier's moment, and the first failure stops the others. Nothing here lists a backup: that is the
manifest's doing, last.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import psycopg

from samplemind.backup.control import Control
from samplemind.backup.logical import (
    RANGE_BYTES,
    CopyOut,
    Segment,
    SnapshotReader,
    dump_globals,
    dump_large_objects,
    dump_schema,
    plan_segments,
)
from samplemind.backup.manifest import (
    CollectionRecord,
    FingerprintRecord,
    MongoRecord,
    ObjectRecord,
    PostgresRecord,
    SegmentRecord,
    SequenceRecord,
    TableRecord,
)
from samplemind.backup.mongo import Collection, DocumentDigest, MongoSource
from samplemind.backup.mongo_accounts import (
    AccountsDeniedError,
    encode_accounts,
    read_accounts,
)
from samplemind.backup.objects import ObjectWriter
from samplemind.backup.parallel import run_parallel
from samplemind.backup.postgres_tools import PostgresTools, output_of
from samplemind.backup.relations import (
    Fingerprint,
    Table,
    count_rows,
    fingerprint,
    list_unlogged_tables,
)
from samplemind.backup.snapshot import Barrier, Snapshot

SCHEMA = "postgres/schema.dump"
GLOBALS = "postgres/globals.sql"
LARGE_OBJECTS = "postgres/large_objects.dump"
DUMP = "postgres/database.dump"
ACCOUNTS = "mongo/accounts.bson"

# What a row takes on the server's pages against what it takes in COPY, roughly; for the bar only.
_UNKNOWN_BYTES = 1 << 16


@dataclass
class _Rows:
    """What was read of the tables so far; several threads add to it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    segments: dict[str, list[tuple[int, SegmentRecord]]] = field(default_factory=dict)
    fingerprints: dict[str, Fingerprint] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    collections: dict[str, CollectionRecord] = field(default_factory=dict)
    objects: dict[str, ObjectRecord] = field(default_factory=dict)

    def add_object(self, record: ObjectRecord) -> None:
        """Take an object that is stored."""
        with self.lock:
            self.objects[record.name] = record

    def add_segment(self, segment: Segment, rows: int) -> None:
        """Take the rows of a segment that is stored."""
        with self.lock:
            self.segments.setdefault(segment.table.qualified_name, []).append(
                (segment.number, SegmentRecord(object=segment.name, rows=rows))
            )


@dataclass(frozen=True)
class _Work:
    """One stream or question, and about how many bytes will pass."""

    size_bytes: int
    run: Callable[[], None]


@dataclass(frozen=True)
class Collected:
    """What a logical backup or a dump has written."""

    postgres: PostgresRecord
    mongo: MongoRecord | None
    objects: tuple[ObjectRecord, ...]
    remarks: tuple[str, ...] = ()


class Collector:
    """Writes the objects of one backup with a few threads."""

    def __init__(self, writer: ObjectWriter, control: Control, jobs: int) -> None:
        self._writer = writer
        self._control = control
        self._jobs = jobs
        self._rows = _Rows()
        self._remarks: list[str] = []

    def collect(self, barrier: Barrier, tools: PostgresTools, *, as_dump: bool) -> Collected:
        """Write both stores at the barrier's moment.

        Args:
            barrier: the moment, held by the caller until this returns.
            tools: PostgreSQL's programs.
            as_dump: PostgreSQL in one `pg_dump -Fc` instead of a stream for each part of a table.

        Raises:
            BackupError: a store refused to give what it holds.
            StoreUnavailableError: a store stopped answering.
        """
        snapshot = barrier.postgres
        readers = _Readers(snapshot)
        works = self._definitions(snapshot, tools, as_dump=as_dump)
        if not as_dump:
            self._remark_unlogged(snapshot)
            works += [
                self._segment(each, readers) for each in plan_segments(snapshot.tables, RANGE_BYTES)
            ]
        works += [self._fingerprint(table, readers, count=as_dump) for table in snapshot.tables]
        collections = [] if barrier.mongo is None else barrier.mongo.collections()
        if barrier.mongo is not None:
            works += [self._documents(barrier.mongo, each) for each in collections if not each.view]
            works.append(self._accounts(barrier.mongo))
        works.sort(key=lambda work: -work.size_bytes)
        self._control.begin("reading", sum(work.size_bytes for work in works))
        try:
            run_parallel(lambda work: work.run(), works, self._jobs, self._control, gentle=True)
        finally:
            readers.close()
        snapshot.connection.execute("SELECT 1")  # the snapshot was held until here
        return Collected(
            postgres=self._postgres_record(snapshot, tools),
            mongo=None if barrier.mongo is None else self._mongo_record(barrier.mongo, collections),
            objects=self.objects,
            remarks=self.remarks,
        )

    @property
    def remarks(self) -> tuple[str, ...]:
        """What could not be read, in sentences."""
        return tuple(self._remarks)

    @property
    def objects(self) -> tuple[ObjectRecord, ...]:
        """The records of everything that was written so far, in the order of names."""
        with self._rows.lock:
            return tuple(self._rows.objects[name] for name in sorted(self._rows.objects))

    def write(self, name: str, blocks: Iterable[bytes]) -> ObjectRecord:
        """Write one object under the job's pace, and keep its record."""
        record = self._writer.write(name, self._control.watch(blocks))
        self._rows.add_object(record)
        return record

    def collect_mongo(self, source: MongoSource) -> MongoRecord:
        """Write MongoDB alone, at the moment that its source was pinned to."""
        collections = source.collections()
        works = [self._documents(source, each) for each in collections if not each.view]
        works.append(self._accounts(source))
        self._control.begin("documents", sum(work.size_bytes for work in works))
        run_parallel(lambda work: work.run(), works, self._jobs, self._control, gentle=True)
        return self._mongo_record(source, collections)

    def _remark_unlogged(self, snapshot: Snapshot) -> None:
        unlogged = list_unlogged_tables(snapshot.connection)
        if unlogged:
            self._remarks.append(
                f"of unlogged tables ({', '.join(unlogged)}) the definitions are in it and no "
                "rows, as the server itself keeps those through no crash"
            )

    def _definitions(
        self, snapshot: Snapshot, tools: PostgresTools, *, as_dump: bool
    ) -> list[_Work]:
        def work(name: str, size_bytes: int, make: Callable[[], Iterable[bytes]]) -> _Work:
            def run() -> None:
                self.write(name, make())

            return _Work(size_bytes, run)

        works = [work(GLOBALS, _UNKNOWN_BYTES, lambda: dump_globals(snapshot.server, tools))]
        if as_dump:
            size_bytes = sum(table.size_bytes for table in snapshot.tables)
            return [*works, work(DUMP, size_bytes, lambda: _whole_dump(snapshot, tools))]
        works.append(work(SCHEMA, _UNKNOWN_BYTES, lambda: dump_schema(snapshot, tools)))
        if snapshot.large_objects:
            works.append(
                work(LARGE_OBJECTS, _UNKNOWN_BYTES, lambda: dump_large_objects(snapshot, tools))
            )
        return works

    def _segment(self, segment: Segment, readers: "_Readers") -> _Work:
        def run() -> None:
            stream = CopyOut(readers.get(), segment)
            self.write(segment.name, stream)
            self._rows.add_segment(segment, stream.rows)

        return _Work(segment.expected_bytes, run)

    def _fingerprint(self, table: Table, readers: "_Readers", *, count: bool) -> _Work:
        def run() -> None:
            self._control.check()
            found = fingerprint(readers.get(), table)
            with self._rows.lock:
                self._rows.fingerprints[table.qualified_name] = found
            if count:
                rows = count_rows(readers.get(), table)
                with self._rows.lock:
                    self._rows.counts[table.qualified_name] = rows

        return _Work(0, run)

    def _documents(self, source: MongoSource, collection: Collection) -> _Work:
        def run() -> None:
            digest = DocumentDigest()
            if collection.capped:
                self._remarks.append(
                    f"the capped collection {collection.name} is as it stood a little later than "
                    "the rest, as MongoDB reads no such one at a moment"
                )
            record = self.write(collection.object_name, source.dump(collection, digest))
            with self._rows.lock:
                self._rows.collections[collection.name] = _collection(collection, record, digest)

        return _Work(collection.size_bytes, run)

    def _accounts(self, source: MongoSource) -> _Work:
        def run() -> None:
            try:
                accounts = read_accounts(source.client, source.database)
            except AccountsDeniedError as error:
                self._remarks.append(str(error))
                return
            self.write(ACCOUNTS, [encode_accounts(accounts)])

        return _Work(0, run)

    def _postgres_record(self, snapshot: Snapshot, tools: PostgresTools) -> PostgresRecord:
        def name(wanted: str) -> str | None:
            return wanted if wanted in self._rows.objects else None

        return PostgresRecord(
            database=snapshot.server.database,
            server_version=snapshot.server_version,
            tool_version=str(tools.major),
            lsn=snapshot.lsn,
            taken_at=snapshot.taken_at,
            schema_revision=snapshot.schema_revision,
            source_bytes=snapshot.database_bytes,
            extensions=snapshot.extensions,
            tables=tuple(self._table_record(table) for table in snapshot.tables),
            sequences=tuple(
                SequenceRecord(
                    schema_name=each.schema, name=each.name, last=each.last, called=each.called
                )
                for each in snapshot.sequences
            ),
            materialized_views=snapshot.views,
            schema_object=name(SCHEMA),
            globals_object=name(GLOBALS),
            dump_object=name(DUMP),
            large_objects_object=name(LARGE_OBJECTS),
            large_objects=snapshot.large_objects,
        )

    def _table_record(self, table: Table) -> TableRecord:
        name = table.qualified_name
        found = self._rows.fingerprints[name]
        segments = sorted(self._rows.segments.get(name, []), key=lambda each: each[0])
        counted = self._rows.counts.get(name, sum(segment.rows for _, segment in segments))
        return TableRecord(
            schema_name=table.schema,
            name=table.name,
            columns=table.columns,
            binary=table.binary,
            rows=counted,
            size_bytes=table.size_bytes,
            key=table.key,
            segments=tuple(segment for _, segment in segments),
            fingerprint=FingerprintRecord(
                rows=found.rows, modulus=found.modulus, digest=found.digest
            ),
        )

    def _mongo_record(self, source: MongoSource, collections: Iterable[Collection]) -> MongoRecord:
        moment = source.cluster_time
        assert moment is not None  # noqa: S101 - it was pinned at the barrier
        records = tuple(
            self._rows.collections.get(each.name) or _collection(each, None, DocumentDigest())
            for each in collections
        )
        return MongoRecord(
            database=source.database,
            server_version=source.server_version,
            cluster_time=(moment.time, moment.inc),
            source_bytes=sum(record.size_bytes for record in records),
            collections=records,
            accounts_object=ACCOUNTS if ACCOUNTS in self._rows.objects else None,
        )


class _Readers:
    """A connection inside the snapshot for each thread that asks; all are closed together."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._local = threading.local()
        self._lock = threading.Lock()
        self._opened: list[SnapshotReader] = []

    def get(self) -> psycopg.Connection:
        """Return this thread's connection."""
        reader: SnapshotReader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = SnapshotReader(self._snapshot.server, self._snapshot.id)
            self._local.reader = reader
            with self._lock:
                self._opened.append(reader)
        return reader.connection

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for reader in self._opened:
                reader.close()


def _whole_dump(snapshot: Snapshot, tools: PostgresTools) -> Iterator[bytes]:
    command = [
        tools.path("pg_dump"),
        "--format=custom",
        # Compressed here, with threads; gzip within pg_dump takes nine times the processor.
        "--compress=none",
        f"--snapshot={snapshot.id}",
    ]
    return output_of(command, snapshot.server.environment())


def _collection(
    collection: Collection, record: ObjectRecord | None, digest: DocumentDigest
) -> CollectionRecord:
    return CollectionRecord(
        name=collection.name,
        view=collection.view,
        options=collection.options,
        indexes=collection.indexes,
        documents=digest.documents,
        size_bytes=0 if record is None else record.plain_bytes,
        digest=None if collection.view else digest.digest,
        object=None if record is None else record.name,
        timeseries=collection.timeseries,
    )
