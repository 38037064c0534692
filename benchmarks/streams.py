"""A backup's bytes on their way: compressing, encrypting, storing, checking; in memory and on disk.

The content is that of a dump: half text of few words, half random floats as vectors have them.
"""

import hashlib
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.row import Row, row
from samplemind.backup.codec import Codec, CodecName, decompress
from samplemind.backup.encryption import DataKey
from samplemind.backup.manifest import BackupKind, Manifest
from samplemind.backup.objects import ObjectReader, ObjectWriter
from samplemind.backup.verification import verify_checksums
from samplemind.storage.local import LocalStore

_BLOCK = 1 << 20
_KEY = DataKey("bench", bytes(32))
_WORDS = [b"kick", b"snare", b"dark", b"loop", b"deep", b"F# minor", b"120.0", b"one_shot"]


def rows(*, quick: bool) -> list[Row]:
    """Measure each step by itself, then the whole way."""
    count = 64 if quick else 256
    pool = _blocks()
    blocks = [pool[number % len(pool)] for number in range(count)]
    plain_mb = count * _BLOCK / 1e6
    found = []
    compressed: dict[CodecName, list[bytes]] = {}
    for name, threads in ((CodecName.GZIP, 0), (CodecName.ZSTD, 0), (CodecName.ZSTD, 2)):
        seconds, compressed[name] = _timed(
            lambda n=name, t=threads: Codec(n, threads=t).compress(blocks)
        )
        peer = None
        if name is CodecName.ZSTD:
            peer = ("gzip", found[0]["value"])
        rate = plain_mb / seconds
        label = f"{name} of a backup" + (f", {threads} threads" if threads else "")
        found.append(row(label, rate, "MB/s", peer=peer, ratio=rate / peer[1] if peer else None))
    share = sum(map(len, compressed[CodecName.ZSTD])) / sum(map(len, compressed[CodecName.GZIP]))
    found.append(row("zstd's size beside gzip's", share, "×"))
    seconds, _ = _timed(lambda: decompress(CodecName.ZSTD, compressed[CodecName.ZSTD]))
    found.append(row("zstd, back", plain_mb / seconds, "MB/s"))
    hashing, _ = _timed(lambda: _hashed(blocks))
    peer = ("SHA-256 alone", plain_mb / hashing)
    seconds, sealed = _timed(lambda: _KEY.encrypt("o", blocks))
    rate = plain_mb / seconds
    found.append(row("encryption in frames", rate, "MB/s", peer=peer, ratio=rate / peer[1]))
    seconds, _ = _timed(lambda: _KEY.decrypt("o", sealed))
    rate = plain_mb / seconds
    found.append(row("decryption in frames", rate, "MB/s", peer=peer, ratio=rate / peer[1]))
    return found + _whole_way(blocks, plain_mb)


def _whole_way(blocks: list[bytes], plain_mb: float) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="samplemind-bench-") as directory:
        store = LocalStore(Path(directory))
        writer = ObjectWriter(store, "bench", Codec(threads=2), _KEY)
        began = time.perf_counter()
        record = writer.write("o", blocks)
        writing = time.perf_counter() - began
        seconds, _ = _timed(lambda: ObjectReader(store, "bench", _KEY).read(record), keep=False)
        now = datetime.now(UTC)
        manifest = Manifest(
            id="bench",
            kind=BackupKind.LOGICAL,
            cluster="bench",
            started_at=now,
            finished_at=now,
            samplemind_version="0",
            objects=(record,),
        )
        began = time.perf_counter()
        assert verify_checksums(store, manifest) == []
        checking = time.perf_counter() - began
        rate = record.size_bytes / 1e6 / checking
        return [
            row("an object written: zstd, encrypted, hashed", plain_mb / writing, "MB/s"),
            row("an object read back", plain_mb / seconds, "MB/s"),
            row("stored bytes checked (L1)", rate, "MB/s", goal="≥ 150", met=rate >= 150),
        ]


def _blocks() -> list[bytes]:
    chance = random.Random(1)
    blocks = []
    for number in range(16):
        if number % 2:
            blocks.append(os.urandom(_BLOCK))
        else:
            text = b"\t".join(
                chance.choice(_WORDS) + b"%d" % chance.randrange(10**6) for _ in range(120_000)
            )
            blocks.append(text[:_BLOCK].ljust(_BLOCK, b"\n"))
    return blocks


def _hashed(blocks: Iterable[bytes]) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    yield digest.digest()


def _timed(work: Callable[[], Iterable[bytes]], *, keep: bool = True) -> tuple[float, list[bytes]]:
    began = time.perf_counter()
    made = list(work()) if keep else []
    if not keep:
        for _ in work():
            pass
    return time.perf_counter() - began, made
