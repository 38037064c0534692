"""Which backups there are, told from the store alone.

`catalog/<id>/manifest.json` makes a backup exist and is written after all of its objects below
`data/<id>/`. Beside it lie, each a small signed object of its own, so that nothing is ever
rewritten: what verifications and drills found (`history/`), a hold (`hold.json`), and the mark of
a backup that is being deleted (`deleted.json`).

Invariant: a backup without its manifest, or marked as deleted, is never listed. A manifest that
cannot be trusted is listed with its problem, never as good. There is no other catalogue that
could differ from the store.
"""

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from samplemind.backup.encryption import DataKey, Keyring
from samplemind.backup.manifest import (
    BackupKind,
    Manifest,
    read_manifest,
    seal,
    unseal,
    write_manifest,
)
from samplemind.backup.objects import DATA
from samplemind.carrying import carrying
from samplemind.errors import (
    BackupCorruptError,
    BackupError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    SecretError,
)
from samplemind.ids import new_id
from samplemind.storage.store import ObjectStore, StoredObject, read_small

CATALOG = "catalog"
DRILL_LEVEL = 4
OLD_AFTER = timedelta(hours=26)
"""Age of the newest good backup at which a night was missed: a day, and time to make one."""

_MANIFEST = "manifest.json"
_HOLD = "hold.json"
_DELETED = "deleted.json"
_CLOCK = f"{CATALOG}/clock"
_EVENT = re.compile(r"history/(?P<at>\d{8}T\d{12}Z)-L(?P<level>[0-4])-[0-9a-f-]{36}\.json")
_READERS = 8


class HistoryEvent(BaseModel):
    """What one verification or drill of a backup found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backup_id: str
    level: Literal[0, 1, 2, 3, 4]
    at: AwareDatetime
    ok: bool
    problems: tuple[str, ...] = ()
    seconds: float = Field(0, ge=0)
    actor: str = "unknown"
    evidence: dict[str, Any] = Field(default_factory=dict)


class Hold(BaseModel):
    """Why a backup may not be deleted, and since when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backup_id: str
    reason: str
    actor: str
    at: AwareDatetime


@dataclass(frozen=True)
class CatalogEntry:
    """A backup as the catalogue lists it."""

    id: str
    manifest: Manifest | None
    problem: str | None
    """Why the manifest cannot be trusted."""
    published_at: datetime
    """The store's time of the manifest."""
    latest: tuple[HistoryEvent, ...] = ()
    """The newest event of each level, the newest first."""
    hold: str | None = None
    """Why it is on hold; none: it is not."""

    @property
    def started_at(self) -> datetime:
        """When it was begun; of an unreadable one, when the store got its manifest."""
        return self.manifest.started_at if self.manifest else self.published_at

    @property
    def manifest_parent(self) -> str | None:
        """The backup that it stands on, if it is an incremental."""
        return self.manifest.parent if self.manifest else None

    @property
    def good(self) -> bool:
        """Whether its manifest is trusted and no verification's last word is against it."""
        return self.manifest is not None and self.failure is None

    def is_old(self, now: datetime) -> bool:
        """Whether a newer one should be there."""
        return now - self.started_at > OLD_AFTER

    @property
    def failure(self) -> HistoryEvent | None:
        """The newest failed event, unless one of its level or above succeeded after it."""
        for event in self.latest:
            if not event.ok and not any(
                later.ok and later.level >= event.level and later.at > event.at
                for later in self.latest
            ):
                return event
        return None

    @property
    def verified(self) -> HistoryEvent | None:
        """The successful event of the highest level that has one."""
        return max((event for event in self.latest if event.ok), key=_by_level, default=None)

    @property
    def drilled(self) -> HistoryEvent | None:
        """The newest drill, if it succeeded."""
        return next((e for e in self.latest if e.level == DRILL_LEVEL and e.ok), None)


@dataclass(frozen=True)
class Leftover:
    """What a backup that never got its manifest, or is being deleted, has left in the store."""

    id: str
    objects: tuple[StoredObject, ...] = field(repr=False)
    newest_at: datetime
    deleting: bool
    """Whether its deletion was begun."""

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes."""
        return sum(found.size_bytes for found in self.objects)


class Catalog:
    """Reads and extends the catalogue in a store."""

    def __init__(self, store: ObjectStore, keyring: Keyring) -> None:
        """Take the store, and the keys that sign and open manifests."""
        self.store = store
        self.keyring = keyring

    def publish(self, manifest: Manifest) -> None:
        """Make a backup exist, after all of its objects are stored.

        Raises:
            ConflictError: there is one with this id, or it was deleted meanwhile, or what it
                stands on was.
            BackupCorruptError: an object of it is not in the store in its full size.
        """
        self._check_objects(manifest)
        self._check_parent(manifest)
        key = _key(manifest.id, _MANIFEST)
        content = write_manifest(manifest, self.keyring)
        # An answer that was lost leaves our own manifest behind.
        if not self.store.put_if_absent(key, content) and read_small(self.store, key) != content:
            message = f"there is a backup {manifest.id} already"
            raise ConflictError(message)
        try:
            # Whoever took it for a leftover has marked it, or has deleted it already.
            if self._exists(_key(manifest.id, _DELETED)):
                message = f"backup {manifest.id} was taken for a leftover and deleted meanwhile"
                raise ConflictError(message)
            self._check_objects(manifest)
            self._check_parent(manifest)
        except (ConflictError, BackupCorruptError):
            self.store.delete(key)
            raise

    def load(self, backup_id: str) -> Manifest:
        """Return a backup's manifest.

        Raises:
            NotFoundError: there is no such backup, or it is being deleted.
            BackupCorruptError, BackupError, SecretError: it cannot be trusted or read.
        """
        _check_id(backup_id)
        try:
            content = read_small(self.store, _key(backup_id, _MANIFEST))
        except NotFoundError as error:
            message = f"there is no backup {backup_id}; `samplemind backup list` shows them"
            raise NotFoundError(message) from error
        if self._exists(_key(backup_id, _DELETED)):
            message = f"backup {backup_id} is being deleted"
            raise NotFoundError(message)
        return read_manifest(content, self.keyring, backup_id)

    def data_key(self, manifest: Manifest) -> DataKey | None:
        """Return the key of a backup's objects; none: they are not encrypted.

        Raises:
            SecretError: the key that closed it is missing, or is another.
        """
        if manifest.encryption is None:
            return None
        return self.keyring.unwrap(manifest.id, manifest.encryption.wrapped())

    def entries(self) -> list[CatalogEntry]:
        """Return every backup, the newest first."""
        found = self._listing()
        alive = [
            backup_id
            for backup_id, objects in found.items()
            if _MANIFEST in objects and _DELETED not in objects
        ]

        def read(backup_id: str) -> CatalogEntry | None:
            return self._entry(backup_id, found[backup_id])

        with ThreadPoolExecutor(_READERS) as readers:
            entries = readers.map(carrying(read), alive)
            return sorted(
                (entry for entry in entries if entry is not None),
                key=lambda entry: (entry.started_at, entry.id),
                reverse=True,
            )

    def entry(self, backup_id: str) -> CatalogEntry:
        """Return one backup as the catalogue lists it.

        Raises:
            NotFoundError: there is no such backup, or it is being deleted.
        """
        _check_id(backup_id)
        objects = self._listing(f"{CATALOG}/{backup_id}/").get(backup_id, {})
        found = None
        if _MANIFEST in objects and _DELETED not in objects:
            found = self._entry(backup_id, objects)
        if found is None:
            message = f"there is no backup {backup_id}; `samplemind backup list` shows them"
            raise NotFoundError(message)
        return found

    def latest_good(
        self, kinds: Iterable[BackupKind] = tuple(BackupKind), cluster: str | None = None
    ) -> CatalogEntry:
        """Return the newest backup of these classes that nothing speaks against.

        Raises:
            NotFoundError: there is none.
        """
        wanted = set(kinds)
        for entry in self.entries():
            manifest = entry.manifest
            if (
                entry.good
                and manifest is not None
                and manifest.kind in wanted
                and cluster in (None, manifest.cluster)
            ):
                return entry
        message = f"there is no good {' or '.join(sorted(wanted))} backup in {self.store.location}"
        raise NotFoundError(message)

    def record(self, event: HistoryEvent) -> None:
        """Add what a verification or drill found; nothing that was there is changed."""
        _check_id(event.backup_id)
        name = f"history/{event.at.astimezone(UTC):%Y%m%dT%H%M%S%fZ}-L{event.level}-{new_id()}.json"
        self._add(_key(event.backup_id, name), event)

    def history(self, backup_id: str) -> list[HistoryEvent]:
        """Return everything that verifications and drills of a backup found, the oldest first."""
        _check_id(backup_id)
        objects = self._listing(f"{CATALOG}/{backup_id}/").get(backup_id, {})
        names = sorted(name for name in objects if _EVENT.fullmatch(name))
        return [event for name in names if (event := self._event(backup_id, name)) is not None]

    def hold(self, backup_id: str, reason: str, actor: str, at: datetime) -> None:
        """Keep a backup from being deleted, until it is released; repeating it is harmless.

        Raises:
            NotFoundError: there is no such backup.
        """
        self.entry(backup_id)
        hold = Hold(backup_id=backup_id, reason=reason, actor=actor, at=at)
        self._add(_key(backup_id, _HOLD), hold)
        # It may have been marked as deleted between the look and the hold.
        if self._exists(_key(backup_id, _DELETED)):
            message = f"backup {backup_id} is being deleted"
            raise NotFoundError(message)

    def is_held(self, backup_id: str) -> bool:
        """Return whether a backup is on hold."""
        return self._exists(_key(backup_id, _HOLD))

    def release(self, backup_id: str) -> None:
        """Let a backup be deleted again; one that is not on hold is released already."""
        self.entry(backup_id)
        self.store.delete(_key(backup_id, _HOLD))

    def now(self) -> datetime:
        """Return the store's own time, against which the ages of its objects are told."""
        self.store.put_stream(_CLOCK, [b"now"])
        return self.store.head(_CLOCK).modified_at

    def leftovers(self, grace: timedelta) -> list[Leftover]:
        """Return what dead uploads and unfinished deletions have left.

        A backup whose newest object is younger than the grace may still be uploading.
        """
        found: dict[str, dict[str, StoredObject]] = self._listing()
        data: dict[str, list[StoredObject]] = {}
        for stored in self.store.list(f"{DATA}/"):
            data.setdefault(stored.key.split("/")[1], []).append(stored)
        before = self.now() - grace
        leftovers = []
        for backup_id in sorted(found.keys() | data.keys()):
            objects = found.get(backup_id, {})
            deleting = _DELETED in objects
            everything = (*data.get(backup_id, ()), *objects.values())
            newest_at = max(stored.modified_at for stored in everything)
            if deleting or (_MANIFEST not in objects and newest_at < before):
                leftovers.append(Leftover(backup_id, everything, newest_at, deleting))
        return leftovers

    def delete_unless_held(self, backup_id: str) -> bool:
        """Delete a backup or what is left of one, unless it is on hold; return whether it went."""
        _check_id(backup_id)
        mark = _key(backup_id, _DELETED)
        # Marking first, then looking: a hold looks for the mark after it was put. Without a
        # manifest the deletion was begun, and the hold came too late.
        self.store.put_if_absent(mark, b"{}")
        if self.is_held(backup_id) and self._exists(_key(backup_id, _MANIFEST)):
            self.store.delete(mark)
            return False
        self.delete(backup_id)
        return True

    def delete(self, backup_id: str) -> int:
        """Delete a backup or what is left of one, held or not; return how many objects went.

        The mark comes first and goes last; the manifest goes before the data. So a mark beside a
        manifest means that all of the data is there still, one without a manifest that the
        deletion must be ended, and no backup is ever listed without its data.
        """
        _check_id(backup_id)
        mark = _key(backup_id, _DELETED)
        self.store.put_if_absent(mark, b"{}")
        self.store.delete(_key(backup_id, _MANIFEST))
        removed = 1
        for prefix in (f"{DATA}/{backup_id}/", f"{CATALOG}/{backup_id}/"):
            for stored in list(self.store.list(prefix)):
                if stored.key != mark:
                    self.store.delete(stored.key)
                    removed += 1
        self.store.delete(mark)
        return removed

    def replace_manifest(self, manifest: Manifest) -> None:
        """Write a backup's manifest anew, in one step: its key was changed.

        Raises:
            NotFoundError: there is no such backup.
        """
        key = _key(manifest.id, _MANIFEST)
        self.store.head(key)
        self.store.put_stream(key, [write_manifest(manifest, self.keyring)])

    def _check_parent(self, manifest: Manifest) -> None:
        if manifest.parent is None:
            return
        try:
            self.load(manifest.parent)
        except NotFoundError as error:
            message = f"{manifest.parent}, on which {manifest.id} stands, was deleted meanwhile"
            raise ConflictError(message) from error

    def _check_objects(self, manifest: Manifest) -> None:
        prefix = f"{DATA}/{manifest.id}/"
        sizes = {
            stored.key.removeprefix(prefix): stored.size_bytes for stored in self.store.list(prefix)
        }
        for record in manifest.objects:
            if sizes.get(record.name) != record.size_bytes:
                message = (
                    f"{record.name} of {manifest.id} is not in the store as it was written; the "
                    "backup is not complete"
                )
                raise BackupCorruptError(message)

    def _listing(self, prefix: str = f"{CATALOG}/") -> dict[str, dict[str, StoredObject]]:
        found: dict[str, dict[str, StoredObject]] = {}
        for stored in self.store.list(prefix):
            _, _, rest = stored.key.partition("/")
            backup_id, slash, name = rest.partition("/")
            if slash:
                found.setdefault(backup_id, {})[name] = stored
        return found

    def _entry(self, backup_id: str, objects: dict[str, StoredObject]) -> CatalogEntry | None:
        manifest, problem = None, None
        try:
            content = read_small(self.store, _key(backup_id, _MANIFEST))
            manifest = read_manifest(content, self.keyring, backup_id)
        except NotFoundError:
            return None  # deleted meanwhile
        except (BackupError, SecretError, InvalidInputError) as error:
            problem = str(error)
        return CatalogEntry(
            id=backup_id,
            manifest=manifest,
            problem=problem,
            published_at=objects[_MANIFEST].modified_at,
            latest=tuple(self._latest(backup_id, objects)),
            hold=self._hold_reason(backup_id) if _HOLD in objects else None,
        )

    def _latest(self, backup_id: str, names: Iterable[str]) -> Iterator[HistoryEvent]:
        newest: dict[str, str] = {}
        for name in sorted(names):
            if match := _EVENT.fullmatch(name):
                newest[match["level"]] = name
        for name in sorted(newest.values(), reverse=True):
            if (event := self._event(backup_id, name)) is not None:
                yield event

    def _event(self, backup_id: str, name: str) -> HistoryEvent | None:
        match = _EVENT.fullmatch(name)
        assert match is not None  # noqa: S101 - it was chosen by this
        try:
            content = read_small(self.store, _key(backup_id, name))
            document, key_id = unseal(content, self.keyring, f"{name} of {backup_id}")
            event = HistoryEvent.model_validate(document)
            forged = bool(self.keyring) and key_id is None
            if event.backup_id == backup_id and str(event.level) == match["level"] and not forged:
                return event
            problem = f"{name} is not what was found for this backup"
        except NotFoundError:
            return None  # deleted meanwhile
        except ValidationError:
            problem = f"{name} is damaged"
        except (BackupError, SecretError, InvalidInputError) as error:
            problem = str(error)
        at = datetime.strptime(match["at"], "%Y%m%dT%H%M%S%fZ").replace(tzinfo=UTC)
        return HistoryEvent.model_validate(
            {
                "backup_id": backup_id,
                "level": int(match["level"]),
                "at": at,
                "ok": False,
                "problems": (problem,),
            }
        )

    def _hold_reason(self, backup_id: str) -> str:
        # That the mark is there is what holds; its words are only for reading.
        try:
            content = read_small(self.store, _key(backup_id, _HOLD))
            document, _ = unseal(content, self.keyring, f"the hold of {backup_id}")
            return Hold.model_validate(document).reason
        except (NotFoundError, BackupError, SecretError, ValidationError) as error:
            return f"held, but its reason cannot be read: {type(error).__name__}"

    def _add(self, key: str, model: BaseModel) -> None:
        self.store.put_if_absent(key, seal(model.model_dump(mode="json"), self.keyring))

    def _exists(self, key: str) -> bool:
        try:
            self.store.head(key)
        except NotFoundError:
            return False
        return True


def _key(backup_id: str, name: str) -> str:
    return f"{CATALOG}/{backup_id}/{name}"


def _check_id(backup_id: str) -> None:
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,99}", backup_id):
        message = f"{backup_id[:80]!r} is no id of a backup; `samplemind backup list` shows them"
        raise NotFoundError(message)


def _by_level(event: HistoryEvent) -> tuple[int, datetime]:
    return event.level, event.at
