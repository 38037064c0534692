"""A backup's objects on their way: compress, encrypt, upload; and back, every byte checked.

Invariant: what is written passes through in blocks and is measured before and after, so that a
record tells exactly what was stored. What is read was compared with its sum before it is
decrypted, and a whole object that differs from its record ends in `BackupCorruptError`.
"""

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from samplemind.backup.codec import Codec, decompress
from samplemind.backup.encryption import DataKey
from samplemind.backup.manifest import ObjectRecord
from samplemind.errors import BackupCorruptError, NotFoundError, SecretError
from samplemind.storage.store import Measure, ObjectStore, in_parts

CHUNK_BYTES = 4 << 20
"""Stored bytes that have a sum of their own."""

DATA = "data"


def object_key(backup_id: str, name: str) -> str:
    """Return the key of a backup's object."""
    return f"{DATA}/{backup_id}/{name}"


@dataclass(frozen=True)
class ObjectWriter:
    """Writes the objects of one backup; several threads may use it at once."""

    store: ObjectStore
    backup_id: str
    codec: Codec
    data_key: DataKey | None = field(default=None, repr=False)

    def write(self, name: str, blocks: Iterable[bytes]) -> ObjectRecord:
        """Store the blocks as an object and return its record.

        Raises:
            StoreUnavailableError, StorageError: from the store; nothing is stored then.
        """
        plain = Measure(blocks)
        stored: Iterable[bytes] = self.codec.compress(plain)
        if self.data_key is not None:
            stored = self.data_key.encrypt(name, stored)
        sums = _ChunkSums(CHUNK_BYTES)
        written = self.store.put_stream(object_key(self.backup_id, name), sums.over(stored))
        measured = plain.result()
        return ObjectRecord(
            name=name,
            size_bytes=written.size_bytes,
            sha256=written.sha256,
            plain_bytes=measured.size_bytes,
            plain_sha256=measured.sha256,
            chunk_bytes=CHUNK_BYTES,
            chunks=sums.result(),
            codec=self.codec.name,
            encrypted=self.data_key is not None,
        )


@dataclass(frozen=True)
class ObjectReader:
    """Reads the objects of one backup; several threads may use it at once."""

    store: ObjectStore
    backup_id: str
    data_key: DataKey | None = field(default=None, repr=False)

    def read(self, record: ObjectRecord) -> Iterator[bytes]:
        """Yield what the object holds, decrypted and decompressed.

        Raises:
            BackupCorruptError: the object is missing, or differs from its record.
            SecretError: it is encrypted and there is no key.
        """
        stored = self.read_stored(record)
        if record.encrypted:
            if self.data_key is None:
                message = f"{record.name} of {self.backup_id} is encrypted, and no key was given"
                raise SecretError(message)
            stored = self.data_key.decrypt(record.name, stored)
        plain = Measure(_no_more_than(record, decompress(record.codec, stored)))
        yield from plain
        measured = plain.result()
        if measured.size_bytes != record.plain_bytes or not hmac.compare_digest(
            measured.sha256, record.plain_sha256
        ):
            message = f"{record.name} of {self.backup_id} decodes to other bytes than were written"
            raise BackupCorruptError(message)

    def read_stored(self, record: ObjectRecord) -> Iterator[bytes]:
        """Yield the stored bytes, each chunk after its sum was compared.

        Raises:
            BackupCorruptError: the object is missing, or differs from its record.
        """
        blocks = self.store.get_stream(object_key(self.backup_id, record.name))
        size = 0
        number = 0
        try:
            for chunk in in_parts(blocks, record.chunk_bytes):
                size += len(chunk)
                digest = hashlib.sha256(chunk).hexdigest()
                if number >= len(record.chunks) or not hmac.compare_digest(
                    digest, record.chunks[number]
                ):
                    raise _damaged(self.backup_id, record, number)
                yield chunk
                number += 1
        except NotFoundError as error:
            message = f"{record.name} of {self.backup_id} is missing from the store"
            raise BackupCorruptError(message) from error
        if number != len(record.chunks) or size != record.size_bytes:
            message = (
                f"{record.name} of {self.backup_id} is cut off: it has {size} of "
                f"{record.size_bytes} bytes"
            )
            raise BackupCorruptError(message)


class _ChunkSums:
    """Sums of each chunk of a stream that passes by."""

    def __init__(self, chunk_bytes: int) -> None:
        self._chunk_bytes = chunk_bytes
        self._sums: list[str] = []
        self._hash = hashlib.sha256()
        self._left = chunk_bytes

    def over(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in blocks:
            view = memoryview(block)
            while view:
                taken = view[: self._left]
                self._hash.update(taken)
                self._left -= len(taken)
                view = view[len(taken) :]
                if not self._left:
                    self._end_chunk()
            yield block

    def result(self) -> tuple[str, ...]:
        if self._left < self._chunk_bytes:
            self._end_chunk()
        return tuple(self._sums)

    def _end_chunk(self) -> None:
        self._sums.append(self._hash.hexdigest())
        self._hash = hashlib.sha256()
        self._left = self._chunk_bytes


def _no_more_than(record: ObjectRecord, blocks: Iterable[bytes]) -> Iterator[bytes]:
    size = 0
    for block in blocks:
        size += len(block)
        if size > record.plain_bytes:
            message = f"{record.name} decodes to more than the {record.plain_bytes} bytes written"
            raise BackupCorruptError(message)
        yield block


def _damaged(backup_id: str, record: ObjectRecord, number: int) -> BackupCorruptError:
    start = number * record.chunk_bytes
    message = (
        f"{record.name} of {backup_id} is damaged in the {record.chunk_bytes} bytes at {start}"
    )
    return BackupCorruptError(message)
