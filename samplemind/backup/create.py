"""Making a backup: lock, moment, objects, and the manifest last.

Invariant: what is not whole is never listed. The manifest is published only while the job still
holds its lock and after everything that it names is stored; whatever ends the job before that
leaves objects that nothing refers to, which this job removes if it lives and `prune` if it does
not.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from samplemind import __version__
from samplemind.backup.catalog import Catalog
from samplemind.backup.chains import Footing, choose_footing
from samplemind.backup.codec import Codec
from samplemind.backup.collect import Collected, Collector
from samplemind.backup.control import Control
from samplemind.backup.encryption import DataKey, Keyring
from samplemind.backup.job_lock import hold_backup_lock
from samplemind.backup.manifest import (
    BackupKind,
    EncryptionRecord,
    Manifest,
    PhysicalRecord,
    PostgresRecord,
    new_backup_id,
)
from samplemind.backup.mongo import MongoSource, connect
from samplemind.backup.objects import ObjectReader, ObjectWriter
from samplemind.backup.physical import ManifestTap, base_backup, flushed_lsn, read_facts
from samplemind.backup.postgres_tools import Server, find_tools
from samplemind.backup.snapshot import hold_barrier
from samplemind.backup.wal import WalSegment, ensure_slot
from samplemind.backup.workspace import spool, workspace
from samplemind.errors import ConflictError, SampleMindError
from samplemind.log import get_logger
from samplemind.settings import MongoSettings
from samplemind.storage.store import ObjectStore

BASE = "postgres/base.tar"
BASE_MANIFEST = "postgres/backup_manifest"

_BASES = (BackupKind.PHYSICAL, BackupKind.INCREMENTAL)

_log = get_logger(__name__)


@dataclass(frozen=True)
class Sources:
    """What is backed up: a PostgreSQL database, and a MongoDB database where there is one."""

    postgres: Server
    mongo: MongoSettings | None

    @property
    def cluster(self) -> str:
        """What tells these sources' backups from others' in the same store."""
        return self.postgres.database


@dataclass(frozen=True)
class Destination:
    """Where backups go and how they are written."""

    store: ObjectStore
    catalog: Catalog
    keyring: Keyring
    codec: Codec = field(default_factory=Codec)
    jobs: int = 2
    incrementals: int = 6
    """In a chain, at most; then an incremental backup becomes a full one."""

    def writer(self, backup_id: str, data_key: DataKey | None) -> ObjectWriter:
        """Return what writes one backup's objects."""
        return ObjectWriter(self.store, backup_id, self.codec, data_key)


@dataclass(frozen=True)
class Order:
    """Which backup is wanted, by whom and why."""

    kind: BackupKind = BackupKind.LOGICAL
    reason: str = "manual"
    actor: str = "unknown"


def create_backup(
    sources: Sources, destination: Destination, order: Order, control: Control
) -> Manifest:
    """Back both stores up and return the manifest, which is in the store then.

    Raises:
        ConflictError: another backup or restore of the database runs.
        MissingToolError: a program of PostgreSQL's is missing; nothing was written.
        BackupError: a store refused; what was written is removed again.
        TransientError: a store did not answer.
    """
    with ExitStack() as stack:
        require_lock = stack.enter_context(hold_backup_lock(sources.postgres))
        started_at = datetime.now(UTC)
        footing = None
        if order.kind is BackupKind.INCREMENTAL:
            facts = read_facts(sources.postgres)
            footing = choose_footing(destination.catalog.entries(), facts, destination.incrementals)
            if footing.parent is None:
                _log.warning("backup.not_incremental", reason=footing.refusal)
                order = replace(order, kind=BackupKind.PHYSICAL)
        backup_id = new_backup_id(order.kind, started_at, secrets.token_hex(4))
        data_key = DataKey.new(backup_id) if destination.keyring else None
        job = _Job(
            sources, destination, order, control, backup_id, data_key, footing or Footing(None)
        )
        _log.info("backup.started", backup_id=backup_id, kind=order.kind, reason=order.reason)
        try:
            began = time.monotonic()
            written = job.physical() if order.kind in _BASES else job.logical()
            seconds = round(time.monotonic() - began, 3)
            manifest = job.manifest(written, started_at, seconds)
            control.begin("publishing")
            require_lock()
            destination.catalog.publish(manifest)
        except BaseException as error:
            _log.warning("backup.failed", backup_id=backup_id, reason=type(error).__name__)
            _remove(destination.catalog, backup_id)
            raise
    _log.info(
        "backup.created",
        backup_id=backup_id,
        kind=order.kind,
        stored_bytes=manifest.stored_bytes,
        source_bytes=manifest.source_bytes,
        seconds=seconds,
    )
    return manifest


def _remove(catalog: Catalog, backup_id: str) -> None:
    """Remove what a failed backup has left; what cannot be removed now is left to `prune`."""
    try:
        # The answer to the manifest's upload may have been lost: the catalogue deletes in an
        # order that never leaves a backup listed without its data.
        catalog.delete(backup_id)
    except SampleMindError as error:
        # The error that ended the backup is the one to be told.
        _log.warning("backup.leftovers", backup_id=backup_id, reason=str(error))


@dataclass(frozen=True)
class _Written:
    """What was stored, and the moments that it is of."""

    collected: Collected
    gap_ms: float | None
    source_bytes: int
    physical: PhysicalRecord | None = None


@dataclass(frozen=True)
class _Job:
    """One backup under way."""

    sources: Sources
    destination: Destination
    order: Order
    control: Control
    backup_id: str
    data_key: DataKey | None = field(repr=False)
    footing: Footing

    def logical(self) -> _Written:
        """Write both stores at one moment."""
        with self._mongo() as mongo, hold_barrier(self.sources.postgres, mongo) as barrier:
            tools = find_tools(barrier.postgres.major)
            collected = self._collector().collect(
                barrier, tools, as_dump=self.order.kind is BackupKind.DUMP
            )
            return _Written(
                collected=collected,
                gap_ms=None if mongo is None else barrier.gap_ms,
                source_bytes=barrier.postgres.database_bytes + _mongo_bytes(collected),
            )

    def physical(self) -> _Written:
        """Write a base backup, full or what changed, then MongoDB whole at the moment it ended."""
        server = self.sources.postgres
        facts = read_facts(server)
        tools = find_tools(facts.major, "pg_basebackup")
        if tools.major != facts.major:
            message = (
                f"pg_basebackup {tools.major} does not fit PostgreSQL {facts.major}: install "
                f"postgresql-client-{facts.major}"
            )
            raise ConflictError(message)
        # From here on the server keeps the WAL that recovery to a later moment needs.
        ensure_slot(server)
        collector = self._collector()
        self.control.begin("base backup", facts.database_bytes)
        with self._parent_manifest() as path:
            tap = ManifestTap(
                base_backup(server, tools, parent_manifest=path, check=self.control.check)
            )
            collector.write(BASE, tap)
        ended = time.monotonic()
        with self._mongo() as mongo, server.connect() as connection:
            if mongo is not None:
                mongo.pin()
            gap_ms = round((time.monotonic() - ended) * 1000, 3)
            end_lsn = flushed_lsn(connection)
            collector.write(BASE_MANIFEST, [tap.manifest or b""])
            documents = None if mongo is None else collector.collect_mongo(mongo)
        first = WalSegment.at(facts.lsn, facts.timeline, facts.segment_bytes)
        collected = Collected(
            postgres=PostgresRecord(
                database=server.database,
                server_version=facts.server_version,
                tool_version=str(tools.major),
                system_identifier=facts.system_identifier,
                lsn=end_lsn,
                taken_at=datetime.now(UTC),
                source_bytes=facts.database_bytes,
            ),
            mongo=documents,
            objects=collector.objects,
            remarks=collector.remarks,
        )
        return _Written(
            collected=collected,
            gap_ms=None if documents is None else gap_ms,
            source_bytes=facts.database_bytes + _mongo_bytes(collected),
            physical=PhysicalRecord(
                base_object=BASE,
                manifest_object=BASE_MANIFEST,
                timeline=facts.timeline,
                start_lsn=facts.lsn,
                end_lsn=end_lsn,
                first_wal=first.file_name(facts.segment_bytes),
                segment_bytes=facts.segment_bytes,
            ),
        )

    def manifest(self, written: _Written, started_at: datetime, seconds: float) -> Manifest:
        """Return the document that makes a backup of what was written."""
        keyring = self.destination.keyring
        return Manifest(
            id=self.backup_id,
            kind=self.order.kind,
            cluster=self.sources.cluster,
            parent=None if self.footing.parent is None else self.footing.parent.id,
            started_at=started_at,
            finished_at=datetime.now(UTC),
            reason=self.order.reason,
            actor=self.order.actor,
            samplemind_version=__version__,
            postgres=written.collected.postgres,
            mongo=written.collected.mongo,
            physical=written.physical,
            gap_ms=written.gap_ms,
            remarks=self._remarks(written),
            encryption=(
                None if self.data_key is None else EncryptionRecord.of(keyring.wrap(self.data_key))
            ),
            durations_s={"write": seconds},
            source_bytes=written.source_bytes,
            objects=written.collected.objects,
        )

    def _remarks(self, written: _Written) -> tuple[str, ...]:
        refusal = self.footing.refusal
        taken = () if refusal is None else (f"a full backup, not an incremental one: {refusal}",)
        return (*taken, *written.collected.remarks)

    @contextmanager
    def _parent_manifest(self) -> Iterator[Path | None]:
        """Fetch the file that says which blocks the parent holds."""
        parent = self.footing.parent
        if parent is None or parent.physical is None:
            yield None
            return
        catalog = self.destination.catalog
        reader = ObjectReader(catalog.store, parent.id, catalog.data_key(parent))
        with workspace("manifest") as folder:
            path = folder / "backup_manifest"
            spool(reader.read(parent.object(parent.physical.manifest_object)), path)
            yield path

    def _collector(self) -> Collector:
        writer = self.destination.writer(self.backup_id, self.data_key)
        return Collector(writer, self.control, self.destination.jobs)

    @contextmanager
    def _mongo(self) -> Iterator[MongoSource | None]:
        if self.sources.mongo is None:
            yield None
            return
        with connect(self.sources.mongo) as client:
            source = MongoSource(client, self.sources.mongo.database)
            source.reach()
            yield source


def _mongo_bytes(collected: Collected) -> int:
    return 0 if collected.mongo is None else collected.mongo.source_bytes
