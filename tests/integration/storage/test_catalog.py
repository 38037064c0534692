"""The catalogue over a real directory: what is listed, what is not, and what outlives a kill."""

import json
import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from samplemind.backup.catalog import Catalog, HistoryEvent
from samplemind.backup.codec import Codec
from samplemind.backup.encryption import DataKey, Keyring
from samplemind.backup.manifest import BackupKind, EncryptionRecord, Manifest
from samplemind.backup.objects import ObjectReader, ObjectWriter
from samplemind.backup.pruning import prune
from samplemind.backup.retention import Policy
from samplemind.backup.rotation import rotate_keys
from samplemind.backup.verification import verify_checksums
from samplemind.errors import (
    BackupCorruptError,
    ConflictError,
    NotFoundError,
    SecretError,
    StorageError,
)
from samplemind.storage.local import LocalStore

_GRACE = timedelta(hours=24)
_OLD, _NEW = secrets.token_bytes(32), secrets.token_bytes(32)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def catalog(store: LocalStore) -> Catalog:
    return Catalog(store, Keyring({"old": _OLD}))


def upload(catalog: Catalog, backup_id: str, *, age: timedelta = timedelta(0)) -> Manifest:
    """Store a backup's objects and return its manifest, not yet published."""
    data_key = DataKey.new(backup_id) if catalog.keyring else None
    writer = ObjectWriter(catalog.store, backup_id, Codec(), data_key)
    objects = tuple(
        writer.write(f"data/{number}", [os.urandom(3000), bytes(3000)]) for number in range(3)
    )
    started_at = datetime.now(UTC) - age
    return Manifest(
        id=backup_id,
        kind=BackupKind.LOGICAL,
        cluster="c",
        started_at=started_at,
        finished_at=started_at,
        samplemind_version="0",
        encryption=EncryptionRecord.of(catalog.keyring.wrap(data_key)) if data_key else None,
        objects=objects,
    )


def publish(catalog: Catalog, backup_id: str, *, age: timedelta = timedelta(0)) -> Manifest:
    manifest = upload(catalog, backup_id, age=age)
    catalog.publish(manifest)
    return manifest


def event(backup_id: str, level: int, *, ok: bool, at: datetime | None = None) -> HistoryEvent:
    return HistoryEvent.model_validate(
        {"backup_id": backup_id, "level": level, "at": at or datetime.now(UTC), "ok": ok}
    )


def listed(catalog: Catalog) -> list[str]:
    return [entry.id for entry in catalog.entries()]


def age_files(store: LocalStore, prefix: str, age: timedelta) -> None:
    root = Path(store.location.removeprefix("file://"))
    then = datetime.now(UTC).timestamp() - age.total_seconds()
    for stored in store.list(prefix):
        os.utime(root / stored.key, (then, then))


def test_a_backup_exists_with_its_manifest_and_not_before(catalog: Catalog):
    manifest = upload(catalog, "b1")
    assert listed(catalog) == []
    with pytest.raises(NotFoundError):
        catalog.load("b1")
    catalog.publish(manifest)
    assert listed(catalog) == ["b1"]
    assert catalog.load("b1") == manifest
    # Another program that knows nothing but the store sees the same.
    assert Catalog(catalog.store, catalog.keyring).entries() == catalog.entries()


def test_a_backup_without_all_of_its_objects_is_not_published(catalog: Catalog):
    manifest = upload(catalog, "b1")
    catalog.store.delete("data/b1/data/1")
    with pytest.raises(BackupCorruptError, match="data/1 of b1"):
        catalog.publish(manifest)
    assert listed(catalog) == []


def test_a_backup_that_was_taken_for_a_leftover_is_not_published(catalog: Catalog):
    manifest = upload(catalog, "b1")
    catalog.store.put_if_absent("catalog/b1/deleted.json", b"{}")
    with pytest.raises(ConflictError, match="taken for a leftover"):
        catalog.publish(manifest)
    catalog.delete("b1")
    assert list(catalog.store.list("")) == []


def test_a_manifest_of_absurd_size_does_not_hide_the_others(catalog: Catalog):
    publish(catalog, "good")
    catalog.store.put_stream("catalog/huge/manifest.json", (bytes(1 << 20) for _ in range(65)))
    assert {entry.id: entry.good for entry in catalog.entries()} == {"good": True, "huge": False}


def test_an_id_is_used_once(catalog: Catalog):
    manifest = publish(catalog, "b1")
    catalog.publish(manifest)  # an answer was lost, and it is tried again
    with pytest.raises(ConflictError):
        catalog.publish(manifest.model_copy(update={"reason": "other"}))


def test_a_manifest_that_was_changed_is_listed_as_not_good(catalog: Catalog):
    publish(catalog, "b1")
    key = "catalog/b1/manifest.json"
    content = b"".join(catalog.store.get_stream(key))
    changed = json.loads(content)
    changed["document"]["reason"] = "forged"
    for forged in (
        json.dumps(changed).encode(),
        content[:-20],
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"document": {}}',
    ):
        catalog.store.put_stream(key, [forged])
        (entry,) = catalog.entries()
        assert not entry.good
        assert entry.problem
        with pytest.raises(BackupCorruptError):
            catalog.load("b1")


def test_a_manifest_of_another_backup_is_not_taken(catalog: Catalog):
    publish(catalog, "b1")
    publish(catalog, "b2")
    other = b"".join(catalog.store.get_stream("catalog/b2/manifest.json"))
    catalog.store.put_stream("catalog/b1/manifest.json", [other])
    with pytest.raises(BackupCorruptError, match="is that of b2"):
        catalog.load("b1")


def test_an_unsigned_manifest_is_refused_once_there_are_keys(store: LocalStore):
    publish(Catalog(store, Keyring({})), "b1")
    keyed = Catalog(store, Keyring({"old": _OLD}))
    (entry,) = keyed.entries()
    assert "without a key" in str(entry.problem)
    with pytest.raises(SecretError, match="--sign-unsigned"):
        keyed.load("b1")
    assert rotate_keys(keyed, sign_unsigned=False).problems
    assert not rotate_keys(keyed, sign_unsigned=True).problems
    assert keyed.load("b1").id == "b1"


def test_a_newer_format_is_named_and_not_guessed(catalog: Catalog):
    from samplemind.backup.manifest import seal
    from samplemind.errors import BackupError

    manifest = publish(catalog, "b1")
    document = {**manifest.model_dump(mode="json"), "format_version": 2, "news": 1}
    catalog.store.put_stream("catalog/b1/manifest.json", [seal(document, catalog.keyring)])
    with pytest.raises(BackupError, match="format 2; this program reads up to 1"):
        catalog.load("b1")


def test_the_last_word_of_a_verification_decides(catalog: Catalog):
    publish(catalog, "b1")
    start = datetime.now(UTC)
    catalog.record(event("b1", 1, ok=True, at=start))
    (entry,) = catalog.entries()
    assert entry.verified is not None
    assert (entry.good, entry.verified.level, entry.drilled) == (True, 1, None)
    catalog.record(event("b1", 3, ok=False, at=start + timedelta(seconds=1)))
    assert not catalog.entry("b1").good
    with pytest.raises(NotFoundError, match="no good"):
        catalog.latest_good()
    catalog.record(event("b1", 1, ok=True, at=start + timedelta(seconds=2)))
    assert not catalog.entry("b1").good, "a lower level does not outweigh a higher one"
    catalog.record(event("b1", 4, ok=True, at=start + timedelta(seconds=3)))
    entry = catalog.entry("b1")
    assert entry.good
    assert entry.drilled is not None
    assert [(each.level, each.ok) for each in catalog.history("b1")] == [
        (1, True),
        (3, False),
        (1, True),
        (4, True),
    ]


def test_a_forged_verification_counts_as_a_failed_one(catalog: Catalog, store: LocalStore):
    publish(catalog, "b1")
    Catalog(store, Keyring({})).record(event("b1", 4, ok=True))
    entry = catalog.entry("b1")
    assert entry.drilled is None
    assert not entry.good


def test_a_held_backup_outlives_retention(catalog: Catalog):
    for number in range(4):
        publish(catalog, f"b{number}", age=timedelta(days=100 - number))
    catalog.hold("b0", "evidence", "ada", datetime.now(UTC))
    assert catalog.entry("b0").hold == "evidence"
    told = prune(catalog, Policy(days=30), _GRACE, dry_run=True)
    assert listed(catalog) == ["b3", "b2", "b1", "b0"]
    done = prune(catalog, Policy(days=30), _GRACE, dry_run=False)
    assert done.deleted == tuple(told.plan.delete) == ("b1", "b2")
    assert listed(catalog) == ["b3", "b0"]
    catalog.release("b0")
    prune(catalog, Policy(days=30), _GRACE, dry_run=False)
    assert listed(catalog) == ["b3"]
    assert {stored.key.split("/")[1] for stored in catalog.store.list("")} == {"b3", "clock"}


def test_a_hold_that_comes_while_a_backup_is_marked_wins(catalog: Catalog):
    publish(catalog, "b1")
    # As a prune leaves it that was killed between its mark and its look for a hold.
    catalog.store.put_if_absent("catalog/b1/deleted.json", b"{}")
    assert listed(catalog) == []
    with pytest.raises(NotFoundError):
        catalog.hold("b1", "wait", "ada", datetime.now(UTC))
    catalog.store.put_if_absent("catalog/b1/hold.json", b"{}")
    prune(catalog, Policy(days=0), _GRACE, dry_run=False)
    assert listed(catalog) == ["b1"]
    assert verify_checksums(catalog.store, catalog.load("b1")) == []


def test_what_a_dead_upload_left_goes_after_its_grace(catalog: Catalog, store: LocalStore):
    publish(catalog, "whole", age=timedelta(days=3))
    upload(catalog, "dead")
    age_files(store, "data/", timedelta(days=2))
    upload(catalog, "running")
    done = prune(catalog, Policy(), _GRACE, dry_run=False)
    assert [leftover.id for leftover in done.leftovers] == ["dead"]
    assert {stored.key.split("/")[1] for stored in store.list("data/")} == {"whole", "running"}


class _Killed(BaseException):
    pass


class _Dying(LocalStore):
    """A store whose program is killed after so many changes."""

    left = 10**9

    def delete(self, key: str) -> None:
        self._live()
        super().delete(key)

    def put_if_absent(self, key: str, content: bytes) -> bool:
        self._live()
        return super().put_if_absent(key, content)

    def _live(self) -> None:
        if not self.left:
            raise _Killed
        self.left -= 1


def test_a_prune_that_is_killed_anywhere_leaves_no_half_backup_and_no_orphan(tmp_path: Path):
    for changes in range(30):
        store = _Dying(tmp_path / str(changes))
        catalog = Catalog(store, Keyring({"old": _OLD}))
        for number in (1, 2):
            publish(catalog, f"b{number}", age=timedelta(days=100 - number))
        catalog.record(event("b1", 1, ok=True))
        store.left = changes
        try:
            prune(catalog, Policy(), _GRACE, dry_run=False)
            finished = True
        except _Killed:
            finished = False
        store.left = 10**9
        for backup_id in listed(catalog):
            assert verify_checksums(store, catalog.load(backup_id)) == []
        assert "b2" in listed(catalog)
        prune(catalog, Policy(), _GRACE, dry_run=False)
        assert listed(catalog) == ["b2"]
        assert {stored.key.split("/")[1] for stored in store.list("")} == {"b2", "clock"}
        if finished:
            return
    raise AssertionError("a prune took more changes than were tried")


def _plain(catalog: Catalog, backup_id: str) -> Iterator[bytes]:
    manifest = catalog.load(backup_id)
    reader = ObjectReader(catalog.store, backup_id, catalog.data_key(manifest))
    for record in manifest.objects:
        yield b"".join(reader.read(record))


def test_a_rotated_key_opens_what_the_old_one_closed_without_touching_it(
    catalog: Catalog, store: LocalStore
):
    publish(catalog, "b1")
    catalog.record(event("b1", 1, ok=True))
    before = list(_plain(catalog, "b1"))
    untouched = list(store.list("data/"))
    both = Catalog(store, Keyring({"new": _NEW, "old": _OLD}))
    assert rotate_keys(both, sign_unsigned=False, dry_run=True).renewed == 2
    assert rotate_keys(both, sign_unsigned=False).renewed == 2
    again = rotate_keys(both, sign_unsigned=False)
    assert (again.renewed, again.current, again.problems) == (0, 2, ())
    assert list(store.list("data/")) == untouched
    only_new = Catalog(store, Keyring({"new": _NEW}))
    assert only_new.entry("b1").good
    assert list(_plain(only_new, "b1")) == before
    with pytest.raises(SecretError, match="'new' is needed"):
        catalog.load("b1")


def test_a_wrong_key_fails_before_anything_is_read(catalog: Catalog, store: LocalStore):
    publish(catalog, "b1")
    with pytest.raises(BackupCorruptError, match="was changed"):
        Catalog(store, Keyring({"old": _NEW})).load("b1")
    with pytest.raises(SecretError, match="'old' is needed"):
        Catalog(store, Keyring({"new": _NEW})).load("b1")


def test_a_full_disk_is_told_and_leaves_nothing(catalog: Catalog, store: LocalStore):
    import resource

    publish(catalog, "b1")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = ObjectWriter(store, "b2", Codec())
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(StorageError, match="no space is left for data/b2/big"):
            writer.write("big", (os.urandom(1 << 20) for _ in range(5)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert listed(catalog) == ["b1"]
    assert list(store.list("data/b2/")) == []
    assert store.abort_uploads("", timedelta(0)) == 0


@pytest.mark.parametrize("backup_id", ["../x", "a/b", "", "x" * 200, "clock/.."])
def test_an_id_that_leads_astray_is_not_found(catalog: Catalog, backup_id: str):
    for call in (catalog.load, catalog.entry, catalog.history, catalog.delete):
        with pytest.raises(NotFoundError):
            call(backup_id)
