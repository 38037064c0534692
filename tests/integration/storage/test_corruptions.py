"""Seeded harm to stored objects: each one is found at the level of checksums, by its object.

CORRUPTIONS=200 runs the full series; what each harm must lead to stands beside it.
"""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from samplemind.backup.catalog import Catalog
from samplemind.backup.codec import Codec, CodecName
from samplemind.backup.encryption import DataKey, Keyring
from samplemind.backup.manifest import BackupKind, EncryptionRecord, Manifest, ObjectRecord
from samplemind.backup.objects import ObjectReader, ObjectWriter
from samplemind.backup.verification import verify_checksums, verify_sizes
from samplemind.errors import BackupCorruptError
from samplemind.storage.local import LocalStore
from tests.integration.storage.test_catalog import listed, publish

_TRIALS = int(os.environ.get("CORRUPTIONS", "24"))

Harm = Callable[[random.Random, Path, Path], None]


def _flip(chance: random.Random, path: Path, _: Path) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def _truncate(chance: random.Random, path: Path, _: Path) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def _swap(_: random.Random, path: Path, other: Path) -> None:
    spare = path.with_name("spare")
    path.rename(spare)
    other.rename(path)
    spare.rename(other)


def _replace(_: random.Random, path: Path, other: Path) -> None:
    shutil.copyfile(other, path)


def _delete(_: random.Random, path: Path, __: Path) -> None:
    path.unlink()


def _double(_: random.Random, path: Path, __: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


def _zero(chance: random.Random, path: Path, _: Path) -> None:
    # What a lost sector looks like; the size stays.
    content = bytearray(path.read_bytes())
    start = chance.randrange(len(content))
    content[start : start + 512] = bytes(len(content[start : start + 512]))
    path.write_bytes(content)


def _reorder(_: random.Random, path: Path, __: Path) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[middle:] + content[:middle])


_HARMS: tuple[Harm, ...] = (_flip, _truncate, _swap, _replace, _delete, _double, _zero, _reorder)


@pytest.fixture(scope="module", params=["encrypted-zstd", "plain-zstd", "plain-none"])
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Manifest, Keyring]:
    """A whole backup whose objects have several chunks and frames."""
    root = tmp_path_factory.mktemp("whole")
    keyring = Keyring({"k": bytes(range(32))})
    data_key = DataKey.new("b1") if request.param.startswith("encrypted") else None
    codec = Codec(CodecName(request.param.rpartition("-")[2]))
    catalog = Catalog(LocalStore(root), keyring)
    writer = ObjectWriter(catalog.store, "b1", codec, data_key)
    chance = random.Random(1)
    # The last two have the same size, so that a swap of them is found by more than sizes.
    sizes = (4_300_000, 50_000, 50_000)
    objects = tuple(
        writer.write(f"o{number}", [chance.randbytes(size)]) for number, size in enumerate(sizes)
    )
    now = catalog.now()
    manifest = Manifest(
        id="b1",
        kind=BackupKind.LOGICAL,
        cluster="c",
        started_at=now,
        finished_at=now,
        samplemind_version="0",
        encryption=EncryptionRecord.of(keyring.wrap(data_key)) if data_key else None,
        objects=objects,
    )
    catalog.publish(manifest)
    return root, manifest, keyring


@pytest.mark.parametrize("seed", range(_TRIALS))
def test_every_corruption_is_found_at_the_level_of_checksums(
    whole: tuple[Path, Manifest, Keyring], tmp_path: Path, seed: int
):
    source, manifest, keyring = whole
    root = tmp_path / "store"
    shutil.copytree(source, root)
    store = LocalStore(root)
    chance = random.Random(seed)
    record, other = chance.sample(manifest.objects, 2)
    harm = _HARMS[seed % len(_HARMS)]
    paths = [root / "data" / "b1" / each.name for each in (record, other)]
    before = paths[0].read_bytes()
    harm(chance, *paths)
    if paths[0].exists() and paths[0].read_bytes() == before:
        pytest.skip("zeros were written over zeros")
    problems = verify_checksums(store, manifest)
    assert any(problem.startswith(f"{record.name} ") for problem in problems), problems
    expected = {record.name, other.name} if harm is _swap else {record.name}
    assert {problem.split(" ", 1)[0] for problem in problems} == expected
    # And a reader gets nothing past the damage.
    reader = ObjectReader(store, "b1", Catalog(store, keyring).data_key(manifest))
    with pytest.raises(BackupCorruptError):
        _drain(reader, record)


def _drain(reader: ObjectReader, record: ObjectRecord) -> None:
    for _ in reader.read(record):
        pass


def test_a_whole_backup_has_no_problem(whole: tuple[Path, Manifest, Keyring]):
    root, manifest, keyring = whole
    store = LocalStore(root)
    assert verify_sizes(store, manifest) == []
    read = []
    data_key = Catalog(store, keyring).data_key(manifest)
    assert verify_checksums(store, manifest, data_key, decode=True, progress=read.append) == []
    assert sum(read) == manifest.stored_bytes


def test_sizes_alone_find_what_is_missing_cut_or_too_much(tmp_path: Path):
    store = LocalStore(tmp_path)
    manifest = publish(Catalog(store, Keyring({})), "b1")
    (tmp_path / "data/b1/data/0").unlink()
    os.truncate(tmp_path / "data/b1/data/1", 7)
    store.put_stream("data/b1/extra", [b"?"])
    size = manifest.objects[1].size_bytes
    assert verify_sizes(store, manifest) == [
        "data/0 is missing from the store",
        f"data/1 has 7 bytes instead of {size}",
        "extra is in the store, but not in the manifest",
    ]


def test_objects_of_another_backup_do_not_pass_for_this_ones(tmp_path: Path):
    catalog = Catalog(LocalStore(tmp_path), Keyring({"k": bytes(32)}))
    first, _ = publish(catalog, "b1"), publish(catalog, "b2")
    shutil.rmtree(tmp_path / "data/b1")
    shutil.copytree(tmp_path / "data/b2", tmp_path / "data/b1")
    problems = verify_checksums(catalog.store, first)
    assert len(problems) == len(first.objects)
    assert listed(catalog) == ["b2", "b1"]
