"""The first two levels of verification, over a manifest and its objects in the store.

L0 compares the sizes of all objects, L1 every stored byte with its sum, which needs no key. Asked
to decode, it authenticates every frame as well and decompresses every object whole.

Invariant: each problem names its object. Nothing is written, and no problem hides another: an
object that is damaged does not keep the next from being read.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum

from samplemind.backup.encryption import DataKey
from samplemind.backup.manifest import Manifest, ObjectRecord
from samplemind.backup.objects import ObjectReader, object_key
from samplemind.carrying import carrying
from samplemind.errors import BackupCorruptError
from samplemind.storage.store import ObjectStore

READERS = 2

Progress = Callable[[int], None]
"""Is called with the stored bytes of each object that was read; what it raises ends the run."""


class Level(IntEnum):
    """How far a backup was verified."""

    SIZES = 0
    CHECKSUMS = 1
    DECODED = 2
    RESTORED = 3
    DRILLED = 4


def verify_sizes(store: ObjectStore, manifest: Manifest) -> list[str]:
    """Compare what the store lists with the manifest (L0); return the problems."""
    prefix = object_key(manifest.id, "")
    sizes = {found.key.removeprefix(prefix): found.size_bytes for found in store.list(prefix)}
    problems = []
    for record in manifest.objects:
        size = sizes.pop(record.name, None)
        if size is None:
            problems.append(f"{record.name} is missing from the store")
        elif size != record.size_bytes:
            problems.append(f"{record.name} has {size} bytes instead of {record.size_bytes}")
    # Nothing of ours writes there after the manifest.
    problems += [f"{name} is in the store, but not in the manifest" for name in sorted(sizes)]
    return problems


def verify_checksums(
    store: ObjectStore,
    manifest: Manifest,
    data_key: DataKey | None = None,
    *,
    decode: bool = False,
    progress: Progress = lambda _: None,
) -> list[str]:
    """Compare every stored byte with its sum (L1); return the problems, with those of L0.

    Args:
        store: where the objects lie.
        manifest: as it was read with its signature.
        data_key: what opens the objects; needed only to decode encrypted ones.
        decode: whether to decrypt and decompress every object as well (a part of L2).
        progress: is told of each object's stored bytes once it was read.
    """
    problems = verify_sizes(store, manifest)
    reader = ObjectReader(store, manifest.id, data_key)

    def verify(record: ObjectRecord) -> str | None:
        problem = _read_whole(reader.read(record) if decode else reader.read_stored(record))
        progress(record.size_bytes)
        return problem

    with ThreadPoolExecutor(READERS) as readers:
        # The large ones first keep all readers busy to the end.
        ordered = sorted(manifest.objects, key=lambda record: -record.size_bytes)
        found = readers.map(carrying(verify), ordered)
        # A size that is wrong was told already, shorter.
        known = {problem.split(" ", 1)[0] for problem in problems}
        problems += [
            problem
            for record, problem in zip(ordered, found, strict=True)
            if problem is not None and record.name not in known
        ]
    return problems


def _read_whole(blocks: Iterable[bytes]) -> str | None:
    try:
        for _ in blocks:
            pass
    except BackupCorruptError as error:
        return str(error)
    return None
