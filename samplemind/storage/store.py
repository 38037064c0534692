"""What an object store can do, whichever it is.

Keys are relative paths with forward slashes. An object is whole or absent: whatever ends an
upload early (a block that cannot be made, a lost store, a killed process) leaves no object under
its key, and at most a leftover that `abort_uploads` removes.

Invariant: a store's client library raises nothing past its own module; callers see
`NotFoundError` (no such object), `StoreUnavailableError` (worth trying again), `SecretError`
(credentials are missing or refused) and `StorageError` (anything else: no such bucket, disk full).
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from samplemind.errors import InvalidInputError

MAX_KEY_BYTES = 900
"""Bytes of the longest key; S3 and Google take 1024 together with a prefix."""

_KEY = re.compile(r"[^/\x00-\x1f\x7f\\]+(?:/[^/\x00-\x1f\x7f\\]+)*")


@dataclass(frozen=True)
class StoredObject:
    """An object as the store lists it; the time is the store's own, UTC."""

    key: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True)
class Written:
    """What an upload has stored."""

    size_bytes: int
    sha256: str


class ObjectStore(Protocol):
    """A place for objects; safe to use from several threads."""

    @property
    def location(self) -> str:
        """The place's address for people, without credentials."""

    def put_stream(self, key: str, blocks: Iterable[bytes]) -> Written:
        """Store the blocks under the key, in bounded memory; an older object is replaced.

        Raises:
            StoreUnavailableError: the store did not answer, after retries of each part.
            StorageError: it refused. Whatever iterating the blocks raises is passed on. In each
                of these cases the key holds what it held before.
        """

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Store a small object where there is none; return whether it was stored."""

    def get_stream(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield an object's bytes from `start`, at most `length` of them.

        Raises:
            NotFoundError: there is no such object; raised before the first block.
        """

    def head(self, key: str) -> StoredObject:
        """Return an object's size and time.

        Raises:
            NotFoundError: there is no such object.
        """

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield every object whose key begins with the prefix, in the order of the keys."""

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is removed already."""

    def abort_uploads(self, prefix: str, older_than: timedelta) -> int:
        """Remove what uploads that began so long ago have left; return how many."""

    def close(self) -> None:
        """Close connections; repeating it is harmless."""


def check_key(key: str) -> str:
    """Return the key when every store can hold it.

    Raises:
        InvalidInputError: it is empty, absolute, too long, or has control characters, backslashes
            or a part that names a directory.
    """
    parts = key.split("/")
    if (
        not _KEY.fullmatch(key)
        or any(part in (".", "..") for part in parts)
        or len(key.encode()) > MAX_KEY_BYTES
    ):
        message = f"{key[:80]!r} is no key of an object: use relative paths with forward slashes"
        raise InvalidInputError(message)
    return key


def read_small(store: ObjectStore, key: str, limit_bytes: int = 64 * 2**20) -> bytes:
    """Return an object's whole content.

    Raises:
        NotFoundError: there is no such object.
        InvalidInputError: it is larger than the limit, so it is not what it is taken for.
    """
    parts: list[bytes] = []
    size = 0
    for block in store.get_stream(key):
        size += len(block)
        if size > limit_bytes:
            message = f"{key} is larger than the {limit_bytes} bytes that it may have"
            raise InvalidInputError(message)
        parts.append(block)
    return b"".join(parts)


class Measure:
    """Passes blocks on while it counts and hashes them."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        """Take the blocks; empty ones are left out."""
        self._blocks = blocks
        self._hash = hashlib.sha256()
        self._size = 0

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            if block:
                self._hash.update(block)
                self._size += len(block)
                yield block

    def result(self) -> Written:
        """Return what has passed so far."""
        return Written(self._size, self._hash.hexdigest())


def in_parts(
    blocks: Iterable[bytes], part_bytes: int, double_after: int | None = None
) -> Iterator[bytes]:
    """Cut and join the blocks to parts of exactly `part_bytes`, the last of what is left.

    Yields nothing for an empty stream. Holds one part at most. After every `double_after` parts
    the size doubles, so that a bounded number of them holds a stream of any length.
    """
    buffer = bytearray()
    size = part_bytes
    count = 0
    for block in blocks:
        view = memoryview(block)
        while view:
            taken = view[: size - len(buffer)]
            buffer += taken
            view = view[len(taken) :]
            if len(buffer) == size:
                yield bytes(buffer)
                buffer.clear()
                count += 1
                if double_after is not None and count % double_after == 0:
                    size *= 2
    if buffer:
        yield bytes(buffer)
