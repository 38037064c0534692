"""Putting a logical backup or a dump back: whole, elsewhere, or in part.

Invariant: nothing of a target is touched before the manifest, its key and the first frames of the
backup have been read; a target that holds anything is refused unless its owner said to drop it,
and then a safety backup of it is made first. What is dropped is replaced: everything is restored
beside it, and switched within moments once all of it is there, so that a restore that fails or is
killed has changed nothing, and nobody reads or writes a half of one. Rows and documents are
counted and compared with the manifest. Objects stream from the store into the server: only the
definitions, some hundred kilobytes, lie in a file for a while.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pymongo import MongoClient

from samplemind.backup import mongo as mongo_store
from samplemind.backup.control import Control
from samplemind.backup.manifest import (
    Manifest,
    ObjectRecord,
    PostgresRecord,
    TableRecord,
)
from samplemind.backup.mongo_accounts import AccountsDeniedError
from samplemind.backup.mongo_restore import MongoRestore
from samplemind.backup.objects import ObjectReader
from samplemind.backup.postgres_restore import (
    SchemaArchive,
    StoredSegment,
    build_graph,
    create_database,
    graph_memory_mib,
    load_segments,
    refresh_views,
    require_empty,
    restore_globals,
    restore_large_objects,
    restore_properties,
    set_sequences,
)
from samplemind.backup.postgres_tools import Server, find_tools, server_major
from samplemind.backup.relations import SequencePlace, Table
from samplemind.backup.staging import Stage, staged, switch
from samplemind.backup.workspace import spool, workspace
from samplemind.connections.mongo import translating_errors
from samplemind.errors import (
    BackupError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
)
from samplemind.log import get_logger
from samplemind.settings import MongoSettings

_log = get_logger(__name__)

_FOREIGN_KEY = " FK CONSTRAINT "


@dataclass(frozen=True)
class Target:
    """Where a backup is restored to; none: that store is left alone."""

    postgres: Server | None
    mongo: MongoSettings | None


@dataclass(frozen=True)
class Choice:
    """What is restored, and how.

    `tables` (schema.name, or the name alone for public) and `collections` choose a part; none of
    both: everything. With a part of the tables all definitions come, without foreign keys, whose
    other side may be missing.
    """

    tables: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()
    drop: bool = False
    """Drop what is there first; the caller has asked for confirmation."""
    defer_graphs: bool = False
    """Leave HNSW indexes to `build_graphs`, so that the database takes traffic before."""
    jobs: int = 4
    graph_memory_mib: int | None = None

    @property
    def partial(self) -> bool:
        """Whether only some tables or collections are wanted."""
        return bool(self.tables or self.collections)


@dataclass
class RestoreReport:
    """What was restored, and when which part was ready, in seconds from the beginning."""

    backup_id: str
    database: str | None = None
    mongo_database: str | None = None
    rows: int = 0
    documents: int = 0
    roles_created: list[str] = field(default_factory=list)
    users_created: list[str] = field(default_factory=list)
    """Of MongoDB."""
    documents_s: float = 0.0
    """Seconds that MongoDB took, which comes first."""
    data_s: float = 0.0
    open_s: float = 0.0
    """From then on the database takes traffic: everything but deferred graphs is there."""
    seconds: float = 0.0
    deferred: list[str] = field(default_factory=list)
    """Statements of the indexes that were left out."""
    warnings: list[str] = field(default_factory=list)
    """What the operator has to do by hand."""


def restore_backup(
    manifest: Manifest,
    reader: ObjectReader,
    target: Target,
    choice: Choice,
    control: Control,
    *,
    before_drop: Callable[[], None] = lambda: None,
) -> RestoreReport:
    """Restore a backup into the target and return what came of it.

    Args:
        manifest: of a logical backup or a dump.
        reader: of its objects, with the data key.
        target: the databases to restore into; PostgreSQL's is made where it is missing.
        choice: what, and how.
        control: cancellation and progress.
        before_drop: called before anything is dropped; makes the safety backup.

    Raises:
        ConflictError: the target is not empty, or another backup or restore of it runs.
        InvalidInputError: the backup is physical, or has no such table or collection.
        BackupCorruptError: an object is not what was written; the message names it.
        BackupError: a server refused something.
    """
    if manifest.physical is not None:
        message = f"{manifest.id} is physical: `samplemind backup pitr restore` recovers from it"
        raise InvalidInputError(message)
    _check_choice(manifest, choice)
    _check_key(manifest, reader)
    began = time.monotonic()
    report = RestoreReport(manifest.id)
    target = _chosen_target(target, choice)
    _prepare(target, choice, before_drop)
    with staged(target.postgres, target.mongo, replace=choice.drop) as stage:
        documents = _mongo_restore(manifest, reader, stage, choice, control)
        if documents is not None:
            report.mongo_database = documents.settings.database
            report.documents = documents.run()
            report.documents_s = round(time.monotonic() - began, 3)
        if stage.postgres is not None and manifest.postgres is not None:
            restore = _PostgresRestore(
                manifest, manifest.postgres, reader, stage.postgres, choice, control
            )
            restore.run(report, began)
        control.check()
    if choice.drop:
        control.begin("switching")
        _switch(target, stage, documents, choice)
        if target.postgres is not None:
            report.database = target.postgres.database
            report.open_s = round(time.monotonic() - began, 3)
        if documents is not None and documents.series:
            report.documents += documents.run_series()
    if documents is not None and not choice.partial:
        try:
            report.users_created = documents.create_accounts()
        except AccountsDeniedError as error:
            report.warnings.append(str(error))
    report.seconds = round(time.monotonic() - began, 3)
    _log.info(
        "backup.restored",
        backup_id=manifest.id,
        database=report.database,
        rows=report.rows,
        documents=report.documents,
        seconds=report.seconds,
    )
    return report


def build_graphs(
    server: Server, statements: Iterable[str], control: Control, memory_mib: int | None = None
) -> None:
    """Build deferred indexes, one by one, each with the memory that it needs."""
    for statement in statements:
        control.begin("vector index")
        build_graph(server, statement, memory_mib or graph_memory_mib(server, statement))


def table_of(record: TableRecord) -> Table:
    """Return a recorded table as the statements take it."""
    return Table(
        schema=record.schema_name,
        name=record.name,
        estimated_rows=record.rows,
        heap_bytes=record.size_bytes,
        size_bytes=record.size_bytes,
        pages=0,
        columns=record.columns,
        binary=record.binary,
        key=record.key,
    )


@dataclass(frozen=True)
class _PostgresRestore:
    """PostgreSQL's part of a restore."""

    manifest: Manifest
    record: PostgresRecord
    reader: ObjectReader
    server: Server
    choice: Choice
    control: Control

    def run(self, report: RestoreReport, began: float) -> None:
        """Restore definitions, rows and indexes in the order of the least work."""
        report.database = self.server.database
        script = b"".join(self._read(self.record.globals_object)).decode()
        report.roles_created = restore_globals(self.server, script)
        if self.record.dump_object is not None:
            self._run_dump(report, began)
        else:
            self._run_logical(report, began)

    def _run_logical(self, report: RestoreReport, began: float) -> None:
        with self._schema() as archive:
            self.control.begin("definitions")
            archive.restore(self.server, section="pre-data")
            segments = self._segments()
            self.control.begin("rows", sum(each.size_bytes for each in segments))
            report.rows = load_segments(
                self.server, segments, self._read, self.control, jobs=self.choice.jobs
            )
            self._restore_rest()
            report.data_s = round(time.monotonic() - began, 3)
            self._restore_indexes(archive, report, began)
            if not self.choice.tables:
                report.warnings += restore_properties(self.server, archive.properties())

    def _restore_indexes(self, archive: SchemaArchive, report: RestoreReport, began: float) -> None:
        graphs = archive.graphs()
        entries = [
            line
            for line in archive.entries()
            if line not in graphs and not (self.choice.tables and _FOREIGN_KEY in line)
        ]
        self.control.begin("indexes and keys")
        archive.restore(
            self.server,
            section="post-data",
            jobs=self.choice.jobs,
            entries=entries,
            memory_mib=self.choice.graph_memory_mib or _index_memory_mib(self.choice.jobs),
        )
        with self.server.connect() as connection:
            if not self.choice.tables:
                refresh_views(connection, self.record.materialized_views)
            self.control.begin("statistics")
            connection.execute("ANALYZE")
        report.open_s = round(time.monotonic() - began, 3)
        if self.choice.defer_graphs:
            report.deferred = list(graphs.values())
        else:
            build_graphs(self.server, graphs.values(), self.control, self.choice.graph_memory_mib)

    def _run_dump(self, report: RestoreReport, began: float) -> None:
        """Restore an archive of pg_dump, which needs a file to be read by several jobs."""
        if self.choice.tables:
            message = "a dump is restored whole: choose tables of a logical backup"
            raise InvalidInputError(message)
        with self._spooled(self.record.dump_object) as path:
            archive = self._archive(path)
            self.control.begin("rows")
            archive.restore(self.server, section="pre-data")
            archive.restore(self.server, section="data", jobs=self.choice.jobs)
            report.data_s = round(time.monotonic() - began, 3)
            report.rows = sum(table.rows for table in self.record.tables)
            self._restore_indexes(archive, report, began)
            report.warnings += restore_properties(self.server, archive.properties())

    def _restore_rest(self) -> None:
        """Restore what is neither a row nor an index."""
        with self.server.connect() as connection:
            set_sequences(
                connection,
                (
                    SequencePlace(each.schema_name, each.name, each.last, each.called)
                    for each in self.record.sequences
                ),
            )
            tools = find_tools(server_major(connection), "pg_restore")
        if self.record.large_objects_object is not None and not self.choice.tables:
            blocks = self._read(self.record.large_objects_object)
            restore_large_objects(self.server, tools, blocks, self.control)

    def _segments(self) -> list[StoredSegment]:
        records = {record.name: record for record in self.manifest.objects}
        return [
            StoredSegment(
                segment.object,
                table_of(table),
                segment.rows,
                records[segment.object].plain_bytes,
            )
            for table in self.record.tables
            if not self.choice.tables or _is_chosen(table, self.choice.tables)
            for segment in table.segments
        ]

    def _read(self, name: str | None) -> Iterator[bytes]:
        if name is None:
            return iter(())
        return self.reader.read(self.manifest.object(name))

    def _archive(self, path: Path) -> SchemaArchive:
        with self.server.connect() as connection:
            major = server_major(connection)
        # An archive can be read by programs that are at least as new as those that wrote it.
        wanted = max(major, int(self.record.tool_version))
        return SchemaArchive(path, find_tools(wanted, "pg_restore"))

    @contextmanager
    def _schema(self) -> Iterator[SchemaArchive]:
        with self._spooled(self.record.schema_object) as path:
            yield self._archive(path)

    @contextmanager
    def _spooled(self, name: str | None) -> Iterator[Path]:
        with workspace("restore") as folder:
            path = folder / "archive"
            spool(self._checked(self._read(name)), path)
            yield path

    def _checked(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in blocks:
            self.control.check()
            yield block


def _chosen_target(target: Target, choice: Choice) -> Target:
    """Leave the store alone of which nothing was chosen, where something was of the other."""
    if not choice.partial:
        return target
    return Target(
        postgres=target.postgres if choice.tables else None,
        mongo=target.mongo if choice.collections else None,
    )


def _prepare(target: Target, choice: Choice, before_drop: Callable[[], None]) -> None:
    """Refuse what holds anything, or drop it after the safety backup; make what is missing."""
    if target.mongo is not None and not choice.drop:
        _require_no_collections(target.mongo, choice)
    if target.postgres is not None and not choice.drop:
        create_database(target.postgres)
        require_empty(target.postgres)
    if choice.drop:
        if target.postgres is not None:
            create_database(target.postgres)
        before_drop()


def _mongo_restore(
    manifest: Manifest, reader: ObjectReader, stage: Stage, choice: Choice, control: Control
) -> MongoRestore | None:
    """Return what restores the documents; none: none are in the backup, or none are wanted."""
    if manifest.mongo is None or stage.mongo is None:
        return None
    return MongoRestore(
        manifest,
        manifest.mongo,
        reader,
        stage,
        stage.mongo,
        choice.collections,
        choice.jobs,
        control,
    )


def _switch(target: Target, stage: Stage, documents: MongoRestore | None, choice: Choice) -> None:
    switch(
        target.postgres,
        stage,
        None if documents is None else documents.views,
        [] if documents is None else [each.name for each in documents.series],
        whole=not choice.partial,
    )


def _require_no_collections(settings: MongoSettings, choice: Choice) -> None:
    with mongo_store.connect(settings) as client:
        there = set(_collection_names(client, settings.database))
    if choice.collections:
        there &= set(choice.collections)
    if there:
        message = (
            f"the MongoDB database {settings.database} is not empty ({len(there)} collections, "
            f"such as {min(there)}): restore into another one (--into), or drop this one (--drop)"
        )
        raise ConflictError(message)


def _collection_names(client: MongoClient[mongo_store.Document], database: str) -> list[str]:
    with translating_errors():
        names = client[database].list_collection_names()
    return [name for name in names if not name.startswith("system.")]


def _check_choice(manifest: Manifest, choice: Choice) -> None:
    tables = () if manifest.postgres is None else manifest.postgres.tables
    for name in choice.tables:
        if not any(_is_chosen(table, (name,)) for table in tables):
            message = f"backup {manifest.id} has no table {name}"
            raise NotFoundError(message)
    known = () if manifest.mongo is None else manifest.mongo.collections
    for name in choice.collections:
        if name not in {each.name for each in known}:
            message = f"backup {manifest.id} has no collection {name}"
            raise NotFoundError(message)


def _check_key(manifest: Manifest, reader: ObjectReader) -> None:
    """Read the smallest object whole, so that a wrong key fails before anything is changed."""
    smallest: ObjectRecord | None = min(
        manifest.objects, key=lambda record: record.size_bytes, default=None
    )
    if smallest is None:
        message = f"backup {manifest.id} has no objects"
        raise BackupError(message)
    for _ in reader.read(smallest):
        pass


def _is_chosen(table: TableRecord, names: Sequence[str]) -> bool:
    qualified = f"{table.schema_name}.{table.name}"
    return qualified in names or (table.schema_name == "public" and table.name in names)


def _index_memory_mib(jobs: int) -> int:
    return max(64, 1024 // max(1, jobs))
