"""The archive of WAL in the store, and recovery from it.

    wal/<system identifier>/archive.json            what the segments are, and their wrapped key
    wal/<system identifier>/<timeline>/<segment>    compressed, encrypted where backups are

Invariant: a segment that is stored is never replaced: the same one again is fine, another under
its name is refused. A recovery begins only when every segment that it needs is there.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from samplemind.backup.catalog import CatalogEntry
from samplemind.backup.chains import Chain, usable_chains
from samplemind.backup.codec import Codec, CodecName, decompress
from samplemind.backup.create import Destination
from samplemind.backup.encryption import DataKey, Keyring
from samplemind.backup.manifest import EncryptionRecord, Manifest, PhysicalRecord, seal, unseal
from samplemind.backup.physical import read_facts
from samplemind.backup.postgres_tools import Server, find_tools
from samplemind.backup.scratch import RecoveryTarget
from samplemind.backup.wal import (
    ArchiveLag,
    WalSegment,
    find_gap,
    is_wal_name,
    read_lag,
    receive,
    store_spool,
)
from samplemind.backup.wal_retention import WalBase, plan_wal
from samplemind.errors import (
    BackupCorruptError,
    BackupError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
)
from samplemind.log import get_logger
from samplemind.storage.store import ObjectStore, read_small

WAL = "wal"

_FILE_BLOCK_BYTES = 1 << 20
# Clocks of the store and of the server may differ by so much without a segment being missed.
_CLOCK_MARGIN = timedelta(hours=1)

_log = get_logger(__name__)


@dataclass(frozen=True)
class ArchiveReport:
    """What one run of the archiver did."""

    stored: int
    lag: ArchiveLag | None


@dataclass(frozen=True)
class Coverage:
    """What can be recovered from one base backup."""

    backup_id: str
    from_time: datetime
    to_time: datetime | None
    """About the time of the last segment without a gap before it; none: only the base itself."""
    last_segment: str | None
    missing: str | None
    """The first segment that is missing although later ones are there."""


class WalArchive:
    """The stored WAL of one server."""

    def __init__(
        self, store: ObjectStore, system_identifier: str, codec: CodecName, key: DataKey | None
    ) -> None:
        self._store = store
        self._prefix = f"{WAL}/{system_identifier}/"
        self._codec = codec
        self._key = key

    @classmethod
    def open(
        cls, store: ObjectStore, keyring: Keyring, system_identifier: str, *, create: bool = False
    ) -> "WalArchive":
        """Return a server's archive, made where it is missing and that is asked for.

        Raises:
            NotFoundError: there is none.
            SecretError: its key is missing.
            BackupCorruptError: its description was changed.
        """
        key = f"{WAL}/{system_identifier}/archive.json"
        archive_id = f"wal-{system_identifier}"
        if create:
            data_key = DataKey.new(archive_id) if keyring else None
            description: dict[str, Any] = {
                "system_identifier": system_identifier,
                "codec": CodecName.ZSTD.value,
                "encryption": (
                    None
                    if data_key is None
                    else EncryptionRecord.of(keyring.wrap(data_key)).model_dump(mode="json")
                ),
            }
            store.put_if_absent(key, seal(description, keyring))
        try:
            content = read_small(store, key)
        except NotFoundError as error:
            message = (
                "no archive of WAL was begun: `samplemind backup create --kind physical` begins one"
            )
            raise NotFoundError(message) from error
        document, _ = unseal(content, keyring, "the description of the WAL archive")
        encryption = document["encryption"]
        opened = None
        if encryption is not None:
            record = EncryptionRecord.model_validate_json(json.dumps(encryption))
            opened = keyring.unwrap(archive_id, record.wrapped())
        return cls(store, system_identifier, CodecName(document["codec"]), opened)

    def put(self, name: str, path: Path) -> None:
        """Store a file of WAL.

        Raises:
            ConflictError: another one has its name already.
        """
        blocks: Iterator[bytes] = Codec(self._codec).compress(_blocks(path))
        if self._key is not None:
            blocks = self._key.encrypt(name, blocks)
        # A segment has 16 MiB, and fewer when it is compressed.
        if self._store.put_if_absent(self._key_of(name), b"".join(blocks)):
            return
        if b"".join(self.get(name)) != path.read_bytes():
            message = (
                f"the archive holds another {name}: a second server archives into the same store, "
                "or this one was restored; begin a new archive with a physical backup"
            )
            raise ConflictError(message)

    def get(self, name: str) -> Iterator[bytes]:
        """Yield a file of WAL.

        Raises:
            NotFoundError: it is not there.
            BackupCorruptError: it is not what was stored.
        """
        blocks = self._store.get_stream(self._key_of(name))
        if self._key is not None:
            blocks = self._key.decrypt(name, blocks)
        return decompress(self._codec, blocks)

    def names(self) -> dict[str, datetime]:
        """Return every stored file with the store's time of it."""
        return {
            name: each.modified_at
            for each in self._store.list(self._prefix)
            if is_wal_name(name := each.key.rpartition("/")[2])
        }

    def fetch(self, names: list[str], folder: Path, segment_bytes: int) -> None:
        """Write files of WAL into a folder, plain."""
        for name in names:
            path = folder / name
            try:
                with path.open("wb") as file:
                    for block in self.get(name):
                        file.write(block)
            except OSError as error:
                message = f"{name} cannot be written into {folder}: {error.strerror}"
                raise BackupError(message) from error
            if not name.endswith(".history") and path.stat().st_size != segment_bytes:
                message = f"the stored {name} has {path.stat().st_size} bytes"
                raise BackupCorruptError(message)

    def _key_of(self, name: str) -> str:
        return f"{self._prefix}{name[:8]}/{name}"


def archive_wal(server: Server, destination: Destination, spool: Path) -> ArchiveReport | None:
    """Bring the WAL of the server into the store up to now; none where no archive was begun.

    Raises:
        ConflictError: another archiver works in the spool.
        BackupError: the server has removed WAL that was not received.
    """
    if read_lag(server) is None:
        return None
    facts = read_facts(server)
    archive = WalArchive.open(
        destination.store, destination.keyring, facts.system_identifier, create=True
    )
    with _alone(spool):
        receive(server, find_tools(facts.major, "pg_receivewal"), spool)
        stored = store_spool(spool, archive.put)
    report = ArchiveReport(stored, read_lag(server))
    _log.info(
        "wal.archived",
        segments=stored,
        lag_bytes=report.lag.slot_bytes if report.lag else None,
    )
    return report


def read_coverage(
    entries: list[CatalogEntry], store: ObjectStore, keyring: Keyring, window_start: datetime
) -> list[Coverage]:
    """Return what can be recovered from each base backup, the newest first.

    Segments from before the window's begin are missing because retention has removed them, which
    is no fault.
    """
    begins = {
        identifier: plan_wal((), bases.of, window_start, bases.segment_bytes).window
        for identifier, bases in _bases(entries).items()
    }
    found = []
    for chain in usable_chains(entries):
        manifest = chain[-1]
        assert manifest.physical is not None  # noqa: S101 - a chain is of base backups
        names = _names_for(manifest, store, keyring)
        missing, reached = _gap(manifest.physical, names)
        begin = begins.get(manifest.postgres.system_identifier or "") if manifest.postgres else None
        if missing is not None and begin is not None and missing < begin:
            missing = None
        size = manifest.physical.segment_bytes
        last = None if reached is None else reached.file_name(size)
        found.append(
            Coverage(
                backup_id=manifest.id,
                from_time=manifest.finished_at,
                to_time=None if last is None else names[last],
                last_segment=last,
                missing=None if missing is None else missing.file_name(size),
            )
        )
    return found


def choose_base(entries: list[CatalogEntry], target: RecoveryTarget) -> Chain:
    """Return the newest base backup that recovery to the target can begin from, with its chain.

    Raises:
        NotFoundError: there is none from before the target.
    """
    for chain in usable_chains(entries):
        manifest = chain[-1]
        assert manifest.physical is not None  # noqa: S101 - a chain is of base backups
        if target.reaches_back_to(manifest.finished_at, manifest.physical.end_lsn):
            return chain
    message = f"there is no good physical backup from before {target}"
    raise NotFoundError(message)


def needed_wal(
    manifest: Manifest, target: RecoveryTarget, store: ObjectStore, keyring: Keyring
) -> list[str]:
    """Return the names of the files of WAL for a recovery, after looking for gaps.

    Raises:
        BackupError: a segment that is needed is missing; the message names it.
        InvalidInputError: the target lies after the end of the archive.
    """
    physical = manifest.physical
    assert physical is not None  # noqa: S101 - the caller chose such a one
    names = _names_for(manifest, store, keyring)
    missing, reached = _gap(physical, names)
    if not target.needs_archive:
        return sorted(names)
    until = names[reached.file_name(physical.segment_bytes)] if reached else manifest.finished_at
    beyond = target.is_after(until, reached, physical.segment_bytes)
    if missing is not None and (beyond or target.is_end):
        message = (
            f"recovery to {target} needs the WAL segment "
            f"{missing.file_name(physical.segment_bytes)}, which is missing from the archive: "
            f"it reaches until about {until:%Y-%m-%d %H:%M:%S} UTC"
        )
        raise BackupError(message)
    if beyond:
        message = (
            f"the archive ends at about {until:%Y-%m-%d %H:%M:%S} UTC, before {target}: choose an "
            "earlier moment, or archive first (`samplemind backup pitr archive`)"
        )
        raise InvalidInputError(message)
    limit = None if target.moment is None else target.moment + _CLOCK_MARGIN
    return sorted(
        name
        for name, stored_at in names.items()
        if name.endswith(".history")
        or (
            name[:8] >= physical.first_wal[:8]
            and name[8:] >= physical.first_wal[8:]
            and (limit is None or stored_at <= limit)
        )
    )


def _gap(
    physical: PhysicalRecord, names: dict[str, datetime]
) -> tuple[WalSegment | None, WalSegment | None]:
    first = WalSegment.parse(physical.first_wal, physical.segment_bytes)
    return find_gap(names, first, None, physical.segment_bytes)


def _names_for(manifest: Manifest, store: ObjectStore, keyring: Keyring) -> dict[str, datetime]:
    identifier = manifest.postgres.system_identifier if manifest.postgres else None
    if identifier is None:
        return {}
    try:
        return WalArchive.open(store, keyring, identifier).names()
    except NotFoundError:
        return {}


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_FILE_BLOCK_BYTES):
            yield block


@contextmanager
def _alone(spool: Path) -> Iterator[None]:
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(spool / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"another archiver works in {spool}"
            raise ConflictError(message) from error
        yield
    finally:
        os.close(descriptor)


def prune_wal(
    entries: list[CatalogEntry], store: ObjectStore, window_start: datetime, *, dry_run: bool
) -> int:
    """Remove the segments that no recovery since that moment needs; return how many."""
    removed = 0
    for identifier, bases in _bases(entries).items():
        keys = {
            each.key.rpartition("/")[2]: each.key for each in store.list(f"{WAL}/{identifier}/")
        }
        plan = plan_wal(keys, bases.of, window_start, bases.segment_bytes)
        removed += len(plan.delete)
        if not dry_run:
            for name in plan.delete:
                store.delete(keys[name])
    return removed


@dataclass(frozen=True)
class _Bases:
    segment_bytes: int
    of: list[WalBase]


def _bases(entries: list[CatalogEntry]) -> dict[str, _Bases]:
    """Return the base backups of each server as the plan of its WAL takes them."""
    usable = {chain[-1].id for chain in usable_chains(entries)}
    found: dict[str, _Bases] = {}
    for entry in entries:
        manifest = entry.manifest
        if manifest is None or manifest.physical is None or manifest.postgres is None:
            continue
        identifier, physical = manifest.postgres.system_identifier, manifest.physical
        if identifier is None:
            continue
        size = physical.segment_bytes
        bases = found.setdefault(identifier, _Bases(size, []))
        bases.of.append(
            WalBase(
                first=WalSegment.parse(physical.first_wal, size),
                last=WalSegment.at(physical.end_lsn or physical.start_lsn, physical.timeline, size),
                finished_at=manifest.finished_at,
                usable=manifest.id in usable,
            )
        )
    return found
