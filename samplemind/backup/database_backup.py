"""Backups as a service uses them: one object over both stores and one store of backups.

    backup = DatabaseBackup(BackupConfig(backup_dir=Path("/backups"), retention_days=30))
    made = backup.create_backup()
    assert backup.verify_backup(made.id, level=3).ok

Everything here blocks, for minutes to hours; call it from a thread or a job. A `Control` cancels
it from another thread and tells of progress.

Invariant: what this object does is what the command line and the jobs do; there is no second way.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from samplemind.backup.archive import (
    ArchiveReport,
    Coverage,
    archive_wal,
    prune_wal,
    read_coverage,
)
from samplemind.backup.catalog import Catalog, CatalogEntry, HistoryEvent
from samplemind.backup.codec import Codec, CodecName
from samplemind.backup.control import Control
from samplemind.backup.copies import copy_backup, prune_copies
from samplemind.backup.create import Destination, Order, Sources, create_backup
from samplemind.backup.drill import DrillResult, run_drill, run_logical_drill
from samplemind.backup.keys import load_keyring
from samplemind.backup.manifest import BackupKind, Manifest
from samplemind.backup.objects import ObjectReader
from samplemind.backup.postgres_tools import Server
from samplemind.backup.pruning import Pruned, prune
from samplemind.backup.readers import require_no_workers, tell_readers
from samplemind.backup.recovery import Recovery, recovered
from samplemind.backup.restore import (
    Choice,
    RestoreReport,
    Target,
    build_graphs,
    restore_backup,
)
from samplemind.backup.retention import Policy
from samplemind.backup.scratch import RecoveryTarget
from samplemind.backup.verdicts import Verification, actor, record, verify_chain
from samplemind.backup.verification import Level
from samplemind.backup.wal import ArchiveLag, read_lag
from samplemind.backup.workspace import remove_abandoned
from samplemind.errors import InvalidInputError, NotFoundError, StackNotRunningError
from samplemind.settings import BackupCodec, Settings, StorageKind, get_settings
from samplemind.storage.opening import open_store

_RESTORABLE = (BackupKind.LOGICAL, BackupKind.DUMP)
_MIB = 2**20
_SPOOL = "wal-spool"


@dataclass(frozen=True)
class BackupConfig:
    """What differs from the settings of the environment; none: as they say."""

    backup_dir: Path | None = None
    """Folder of a local store."""
    retention_days: int | None = None
    compress: bool | None = None
    cloud_storage: Literal["s3", "gcs", "azure"] | None = None
    bucket: str | None = None

    def apply(self, settings: Settings) -> Settings:
        """Return the settings with these values."""
        storage: dict[str, Any] = {}
        backup: dict[str, Any] = {}
        if self.cloud_storage is not None:
            storage["kind"] = StorageKind(self.cloud_storage)
            storage["bucket"] = self.bucket or settings.storage.bucket
            if storage["bucket"] is None:
                message = f"cloud_storage={self.cloud_storage!r} needs a bucket"
                raise InvalidInputError(message)
            if self.backup_dir is not None:
                backup["local_copy"] = self.backup_dir
        elif self.backup_dir is not None:
            storage |= {"kind": StorageKind.LOCAL, "path": self.backup_dir}
        if self.retention_days is not None:
            backup["keep_days"] = self.retention_days
        if self.compress is False:
            backup["codec"] = BackupCodec.NONE
        return settings.model_copy(
            update={
                "storage": settings.storage.model_copy(update=storage),
                "backup": settings.backup.model_copy(update=backup),
            }
        )


@dataclass(frozen=True)
class Cleanup:
    """What retention has removed, or with a dry run would remove."""

    pruned: Pruned
    wal_segments: int
    copies: Pruned | None = None
    """Of the local copies; none: none are made."""


@dataclass(frozen=True)
class Survey:
    """The store of backups at one look: every backup, and what can be recovered from which."""

    location: str
    entries: tuple[CatalogEntry, ...]
    coverage: tuple[Coverage, ...]


class DatabaseBackup:
    """Creates, lists, verifies, restores and cleans up backups."""

    def __init__(
        self, config: BackupConfig | None = None, *, settings: Settings | None = None
    ) -> None:
        """Take what differs from the settings, and those of the environment; opens nothing yet."""
        self.settings = (config or BackupConfig()).apply(settings or get_settings())

    def create_backup(
        self,
        kind: BackupKind = BackupKind.LOGICAL,
        *,
        reason: str = "manual",
        control: Control | None = None,
    ) -> Manifest:
        """Back both stores up at one moment; the backup is listed when this returns.

        Raises:
            ConflictError: another backup or restore of the database runs.
            BackupError: a store refused; nothing is left behind. Or the backup is made and its
                local copy failed; the message says so.
            TransientError: a store did not answer.
        """
        order = Order(kind, reason, actor())
        with self._destination() as destination:
            made = create_backup(self._sources(), destination, order, control or self.control())
            if self.settings.backup.local_copy is not None:
                copy_backup(destination.catalog, made, self.settings.backup.local_copy)
            return made

    def restore_backup(
        self,
        backup_id: str | None = None,
        *,
        into: str | None = None,
        mongo_into: str | None = None,
        choice: Choice | None = None,
        safety_backup: bool = True,
        beside_workers: bool = False,
        control: Control | None = None,
    ) -> RestoreReport:
        """Restore a backup; none: the newest good one.

        Args:
            backup_id: as `list_backups` shows it.
            into: a database of the same server to restore PostgreSQL into, made where it is
                missing; none: the platform's own.
            mongo_into: the same of MongoDB; none: `into`, or else the platform's own.
            choice: what to restore, and whether to drop what is there.
            safety_backup: back up what is about to be dropped.
            beside_workers: replace the platform's own stores although workers run: what they
                write until the switch is lost, and what they do then is of both times.
            control: cancellation and progress.

        Raises:
            ConflictError: the target holds something and nobody said to drop it, or workers run.
            InvalidInputError: some tables were chosen, and all were to be dropped for them.
            NotFoundError: there is no such backup, table or collection.
        """
        chosen = choice or Choice()
        control = control or self.control()
        sources = self._sources()
        postgres = sources.postgres.with_database(into) if into else sources.postgres
        mongo = sources.mongo
        if mongo is not None and (mongo_into or into):
            mongo = mongo.model_copy(update={"database": mongo_into or into})
        # Whoever names the platform's own database means it no less than who names none.
        own = postgres.database == sources.postgres.database or (
            mongo is not None and mongo == sources.mongo
        )
        if own:
            _require_whole(chosen)
            if not beside_workers:
                require_no_workers(self.settings.broker)
        with self._destination() as destination:
            manifest = self._manifest(destination.catalog, backup_id, _RESTORABLE)
            reader = _reader(destination.catalog, manifest)

            def back_up_first() -> None:
                if not safety_backup:
                    return
                endangered = Sources(postgres, mongo)
                order = Order(reason=f"before a restore of {manifest.id}", actor=actor())
                if _exists(postgres):
                    create_backup(endangered, destination, order, control)

            report = restore_backup(
                manifest,
                reader,
                Target(postgres, mongo),
                chosen,
                control,
                before_drop=back_up_first,
            )
        if own:
            report.warnings += tell_readers(self.settings)
        return report

    def build_deferred(self, into: str | None, statements: list[str], control: Control) -> None:
        """Build the vector indexes that a restore has left out."""
        postgres = self._sources().postgres
        server = postgres.with_database(into) if into else postgres
        build_graphs(server, statements, control)

    @property
    def location(self) -> str:
        """Where the backups lie, without credentials."""
        with self._destination() as destination:
            return destination.store.location

    @property
    def database(self) -> str:
        """The name of the platform's own PostgreSQL database."""
        return self._sources().postgres.database

    def restorable(self, backup_id: str | None = None) -> Manifest:
        """Return the manifest that `restore_backup` would take.

        Raises:
            NotFoundError: there is none.
        """
        with self._destination() as destination:
            return self._manifest(destination.catalog, backup_id, _RESTORABLE)

    def list_backups(self) -> list[CatalogEntry]:
        """Return every backup of the store, the newest first."""
        with self._destination() as destination:
            return destination.catalog.entries()

    def cleanup_old_backups(
        self, *, dry_run: bool = False, control: Control | None = None
    ) -> Cleanup:
        """Delete what retention no longer keeps, and what killed jobs have left.

        Never the last good backup of its class, never one on hold, never what another one or a
        recovery needs.
        """
        backup = self.settings.backup
        with self._destination() as destination:
            catalog = destination.catalog
            if not dry_run:
                remove_abandoned()
            policy = Policy.from_settings(backup)
            grace = timedelta(hours=backup.leftover_grace_h)
            check = (control or self.control()).check
            copies = None
            # First, as what is on hold there is told by the backups that are about to go.
            if backup.local_copy is not None:
                copies = prune_copies(
                    catalog, backup.local_copy, policy, grace, dry_run=dry_run, check=check
                )
            pruned = prune(catalog, policy, grace, dry_run=dry_run, check=check)
            kept = [entry for entry in catalog.entries() if entry.id not in pruned.deleted]
            removed = prune_wal(
                kept, destination.store, self._window_start(catalog), dry_run=dry_run
            )
            return Cleanup(pruned, removed, copies)

    def verify_backup(
        self,
        backup_id: str | None = None,
        *,
        level: Level = Level.CHECKSUMS,
        control: Control | None = None,
    ) -> Verification:
        """Verify a backup at a level, and keep what was found with it; none: the newest.

        An incremental is verified together with all that it stands on, as it is worth no more.

        Raises:
            NotFoundError: there is no such backup.
            SecretError: the key that it needs is missing.
        """
        control = control or self.control()
        with self._destination() as destination:
            manifest = self._newest_or(destination.catalog, backup_id)
            # Asked for late: below level 3 nothing but the store of backups need be there.
            return verify_chain(
                destination.catalog, manifest, level, control, lambda: self._sources().postgres
            )

    def drill(
        self,
        backup_id: str | None = None,
        *,
        within_s: float = 5.0,
        seed: int | None = None,
        control: Control | None = None,
    ) -> Verification:
        """Recover on scratch servers, compare every row and measure; keep the evidence.

        With a physical backup this is recovery to a random moment of the next seconds, compared
        with the source at that moment; else (or where a logical one is named) a restore.

        Raises:
            NotFoundError: there is no such backup.
        """
        control = control or self.control()
        began = time.monotonic()
        with self._destination() as destination:
            result = self._drilled(destination, backup_id, within_s, seed, control)
            return record(
                destination.catalog,
                Verification(
                    id=result.backup_id,
                    level=Level.DRILLED,
                    ok=not result.problems,
                    problems=result.problems,
                    seconds=round(time.monotonic() - began, 3),
                    evidence=result.evidence,
                ),
            )

    def archive_wal(self) -> ArchiveReport | None:
        """Bring PostgreSQL's WAL into the store up to now; none where no archive was begun."""
        with self._destination() as destination:
            return archive_wal(self._sources().postgres, destination, self._spool)

    def coverage(self) -> list[Coverage]:
        """Return what can be recovered from each physical backup, the newest first."""
        return list(self.survey().coverage)

    def survey(self) -> Survey:
        """Return `list_backups` and `coverage` of one reading of the store."""
        with self._destination() as destination:
            catalog = destination.catalog
            entries = catalog.entries()
            coverage = read_coverage(
                entries, catalog.store, catalog.keyring, self._window_start(catalog)
            )
            return Survey(catalog.store.location, tuple(entries), tuple(coverage))

    def inspect(self, backup_id: str) -> tuple[CatalogEntry, list[HistoryEvent]]:
        """Return one backup and everything that verifications and drills of it found.

        Raises:
            NotFoundError: there is no such backup.
        """
        with self._destination() as destination:
            catalog = destination.catalog
            return catalog.entry(backup_id), catalog.history(backup_id)

    def hold(self, backup_id: str, reason: str, by: str) -> None:
        """Keep a backup from being pruned until it is released; see `Catalog.hold`."""
        with self._destination() as destination:
            destination.catalog.hold(backup_id, reason, by, datetime.now(UTC))

    def release(self, backup_id: str) -> None:
        """Let a backup that was on hold be pruned again."""
        with self._destination() as destination:
            destination.catalog.release(backup_id)

    def archive_lag(self) -> ArchiveLag | None:
        """Return how far the archive is behind the server; none where none was begun."""
        return read_lag(self._sources().postgres)

    @contextmanager
    def recover(
        self, target: RecoveryTarget, directory: Path, *, control: Control | None = None
    ) -> Iterator[Recovery]:
        """Recover PostgreSQL to a moment into a new data directory, and serve it for the block.

        Raises:
            NotFoundError: there is no base backup from before the target.
            BackupError: WAL is missing.
        """
        with (
            self._destination() as destination,
            recovered(
                destination.catalog,
                self._sources().postgres,
                target,
                directory,
                control or self.control(),
                durable=True,
            ) as recovery,
        ):
            yield recovery

    def control(self, **options: Any) -> Control:
        """Return a control with the rate limit of the settings."""
        limit = int(self.settings.backup.rate_limit_mib_s * _MIB) or None
        return Control(bytes_per_s=limit, **options)

    @contextmanager
    def _destination(self) -> Iterator[Destination]:
        backup = self.settings.backup
        store = open_store(self.settings.storage, self.settings.home)
        try:
            keyring = load_keyring(backup)
            yield Destination(
                store=store,
                catalog=Catalog(store, keyring),
                keyring=keyring,
                codec=Codec(CodecName(backup.codec.value), backup.level),
                jobs=backup.jobs,
                incrementals=backup.incrementals,
            )
        finally:
            store.close()

    def _sources(self) -> Sources:
        url = self.settings.postgres.url
        if url is None:
            message = "no address for PostgreSQL: set SAMPLEMIND_POSTGRES_URL, or `samplemind up`"
            raise StackNotRunningError(message)
        mongo = self.settings.mongo
        return Sources(Server(url), mongo if mongo.url is not None else None)

    def _window_start(self, catalog: Catalog) -> datetime:
        """Return since when recovery to any moment shall be possible, by the store's clock."""
        return catalog.now() - timedelta(days=self.settings.backup.keep_days)

    @property
    def _spool(self) -> Path:
        return self.settings.home / _SPOOL

    def _manifest(
        self, catalog: Catalog, backup_id: str | None, kinds: tuple[BackupKind, ...]
    ) -> Manifest:
        if backup_id is not None:
            return catalog.load(backup_id)
        manifest = catalog.latest_good(kinds, self._sources().cluster).manifest
        assert manifest is not None  # noqa: S101 - a good one has a manifest
        return manifest

    def _newest_or(self, catalog: Catalog, backup_id: str | None) -> Manifest:
        """Return the one that is named, or the newest, good or not: hiding a bad one helps none."""
        if backup_id is not None:
            return catalog.load(backup_id)
        for entry in catalog.entries():
            # Loaded again where it is unreadable, for the error that says why.
            return entry.manifest or catalog.load(entry.id)
        message = f"there is no backup in {catalog.store.location}"
        raise NotFoundError(message)

    def _drilled(
        self,
        destination: Destination,
        backup_id: str | None,
        within_s: float,
        seed: int | None,
        control: Control,
    ) -> DrillResult:
        catalog = destination.catalog
        if backup_id is None:
            cluster = self._sources().cluster
            try:
                catalog.latest_good((BackupKind.PHYSICAL,), cluster)
            except NotFoundError:
                manifest = self._manifest(catalog, None, _RESTORABLE)
                return run_logical_drill(manifest, destination, control)
        else:
            manifest = catalog.load(backup_id)
            if manifest.physical is None:
                return run_logical_drill(manifest, destination, control)
        return run_drill(
            self._sources().postgres,
            destination,
            self._spool,
            control,
            within_s=within_s,
            seed=seed,
        )


def _require_whole(choice: Choice) -> None:
    if choice.drop and choice.tables:
        message = (
            "some tables cannot take the place of all: restore them into another database (--into)"
            " and copy from there"
        )
        raise InvalidInputError(message)


def _reader(catalog: Catalog, manifest: Manifest) -> ObjectReader:
    return ObjectReader(catalog.store, manifest.id, catalog.data_key(manifest))


def _exists(server: Server) -> bool:
    with server.with_database("postgres").connect() as connection:
        row = connection.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", (server.database,)
        ).fetchone()
    return row is not None
