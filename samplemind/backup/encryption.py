"""Encryption of a backup's objects, and the keys that open it.

Each backup has a random data key; each object a key derived from that, a random salt, the
backup's id and the object's name (HKDF-SHA256). An object is a header and frames of AES-256-GCM
whose nonce is the frame's number and whether it is the last (the STREAM construction, Hoang,
Reyhanitabar, Rogaway, Vizár 2015), so a stream that is cut, reordered, doubled or taken from
another place does not open. The data key lies in the manifest, wrapped by a key of the operator's
with an id; changing that key wraps the data key anew and encrypts nothing again.

Invariant: nothing of a frame is yielded before its tag has been checked. No key appears in a
representation, a message or a traceback.
"""

import hashlib
import hmac
import os
import secrets
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)

from samplemind.errors import BackupCorruptError, InvalidInputError, SecretError
from samplemind.storage.store import in_parts

KEY_BYTES = 32
FRAME_BYTES = 1 << 20

_MAGIC = b"SMBK\x00\x01"
_SALT_BYTES = 32
_TAG_BYTES = 16
_HEADER = struct.Struct(f">{len(_MAGIC)}sI{_SALT_BYTES}s")
_MAX_FRAME_BYTES = 16 << 20


@dataclass(frozen=True)
class DataKey:
    """The random key of one backup."""

    backup_id: str
    secret: bytes = field(repr=False)

    @classmethod
    def new(cls, backup_id: str) -> Self:
        """Return a fresh key for a backup."""
        return cls(backup_id, secrets.token_bytes(KEY_BYTES))

    def encrypt(self, name: str, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield an object's header and frames; the name is a part of what is authenticated."""
        salt = os.urandom(_SALT_BYTES)
        header = _HEADER.pack(_MAGIC, FRAME_BYTES, salt)
        cipher = self._cipher(name, salt)
        yield header
        number = 0
        waiting = b""
        for part in in_parts(blocks, FRAME_BYTES):
            # One frame is held back, as only the end of the stream tells which is the last.
            if waiting:
                yield cipher.encrypt(_nonce(number, last=False), waiting, header)
                number += 1
            waiting = part
        yield cipher.encrypt(_nonce(number, last=True), waiting, header)

    def decrypt(self, name: str, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield what was encrypted under that name.

        Raises:
            BackupCorruptError: the object is cut, changed, reordered, or belongs elsewhere.
        """
        source = _Source(blocks)
        header = source.take(_HEADER.size)
        if len(header) != _HEADER.size:
            message = f"{name} ends within its header"
            raise BackupCorruptError(message)
        magic, frame_bytes, salt = _HEADER.unpack(header)
        if magic != _MAGIC or not 0 < frame_bytes <= _MAX_FRAME_BYTES:
            message = f"{name} is no encrypted object of this format"
            raise BackupCorruptError(message)
        cipher = self._cipher(name, salt)
        number = 0
        frame = source.take(frame_bytes + _TAG_BYTES)
        while True:
            following = source.take(frame_bytes + _TAG_BYTES)
            last = not following
            try:
                plain = cipher.decrypt(_nonce(number, last=last), frame, header)
            except (InvalidTag, ValueError) as error:
                message = f"frame {number} of {name} was changed, moved or cut off"
                raise BackupCorruptError(message) from error
            if plain:
                yield plain
            if last:
                return
            frame = following
            number += 1

    def _cipher(self, name: str, salt: bytes) -> AESGCM:
        place = f"samplemind backup object\0{self.backup_id}\0{name}".encode()
        return AESGCM(HKDF(SHA256(), KEY_BYTES, salt, place).derive(self.secret))


@dataclass(frozen=True)
class WrappedKey:
    """A data key as it lies in a manifest."""

    key_id: str
    wrapped: bytes


class Keyring:
    """The operator's keys by id: the first is for everything new, all open what they closed."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        """Take the keys, each of 32 bytes, the current one first.

        Raises:
            InvalidInputError: one has another length, or an id is empty.
        """
        for key_id, secret in keys.items():
            if not key_id or len(secret) != KEY_BYTES:
                message = f"the backup key {key_id!r} must have an id and {KEY_BYTES} bytes"
                raise InvalidInputError(message)
        self._keys = dict(keys)

    def __repr__(self) -> str:
        return f"<Keyring {', '.join(self._keys) or 'empty'}>"

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def ids(self) -> tuple[str, ...]:
        """The keys' ids, the current one first."""
        return tuple(self._keys)

    @property
    def current_id(self) -> str | None:
        """The id of the key for everything new; none when there is no key."""
        return next(iter(self._keys), None)

    def wrap(self, data_key: DataKey) -> WrappedKey:
        """Close a data key with the current key (AES key wrap with padding, RFC 5649).

        Raises:
            SecretError: there is no key.
        """
        key_id = self.current_id
        if key_id is None:
            message = "no backup key is set, so nothing can be encrypted"
            raise SecretError(message)
        # The id goes in too, so that a key wrapped for one backup opens no other.
        content = data_key.secret + _id_digest(data_key.backup_id)
        wrapped = aes_key_wrap_with_padding(self._derived(key_id, b"wrap"), content)
        return WrappedKey(key_id, wrapped)

    def unwrap(self, backup_id: str, wrapped: WrappedKey) -> DataKey:
        """Open a backup's data key.

        Raises:
            SecretError: the key with that id is missing, or is another key.
        """
        try:
            content = aes_key_unwrap_with_padding(
                self._derived(wrapped.key_id, b"wrap"), wrapped.wrapped
            )
        except InvalidUnwrap:
            message = f"the backup key {wrapped.key_id!r} is not the one that closed {backup_id}"
            raise SecretError(message) from None
        if not hmac.compare_digest(content[KEY_BYTES:], _id_digest(backup_id)):
            message = f"the data key in {backup_id} belongs to another backup"
            raise SecretError(message)
        return DataKey(backup_id, content[:KEY_BYTES])

    def sign(self, content: bytes) -> tuple[str, str]:
        """Return the current key's id and its HMAC-SHA256 of the content, in hexadecimal.

        Raises:
            SecretError: there is no key.
        """
        key_id = self.current_id
        if key_id is None:
            message = "no backup key is set, so nothing can be signed"
            raise SecretError(message)
        return key_id, self._signature(key_id, content)

    def check_signature(self, key_id: str, signature: str, content: bytes) -> bool:
        """Return whether the key with that id signed the content, in constant time.

        Raises:
            SecretError: the key with that id is missing.
        """
        return hmac.compare_digest(
            self._signature(key_id, content).encode(), signature.encode(errors="replace")
        )

    def _signature(self, key_id: str, content: bytes) -> str:
        return hmac.new(self._derived(key_id, b"sign"), content, hashlib.sha256).hexdigest()

    def _derived(self, key_id: str, purpose: bytes) -> bytes:
        secret = self._keys.get(key_id)
        if secret is None:
            known = f"only {', '.join(self._keys)}" if self._keys else "none"
            message = f"the backup key {key_id!r} is needed, and {known} is set"
            raise SecretError(message)
        return HKDF(SHA256(), KEY_BYTES, None, b"samplemind backup " + purpose).derive(secret)


class _Source:
    """Takes exact numbers of bytes from a stream of blocks."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._buffer = bytearray()

    def take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            block = next(self._blocks, None)
            if block is None:
                break
            self._buffer += block
        with memoryview(self._buffer) as view:
            taken = bytes(view[:size])
        del self._buffer[:size]
        return taken


def _nonce(number: int, *, last: bool) -> bytes:
    # The key is the object's own, so counting is enough to use no nonce twice.
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def _id_digest(backup_id: str) -> bytes:
    return hashlib.sha256(backup_id.encode()).digest()[:8]
