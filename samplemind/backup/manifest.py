"""What a backup says of itself: one JSON document, signed, written after all of its objects.

Invariant: a manifest that is read has the signature of a key of ours over its canonical form, or
says plainly that it was written without a key. It never holds a credential. Unknown fields are
refused and so is a newer format, rather than half understood.
"""

import hashlib
import hmac
import json
import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from samplemind.backup.codec import CodecName
from samplemind.backup.encryption import Keyring, WrappedKey
from samplemind.errors import BackupCorruptError, BackupError, SecretError

FORMAT_VERSION = 1

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
BackupId = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z_.-]{0,99}$")]

_UNSIGNED = "sha256"
_SIGNED = "hmac-sha256"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BackupKind(StrEnum):
    """The class of a backup."""

    DUMP = "dump"
    LOGICAL = "logical"
    PHYSICAL = "physical"
    INCREMENTAL = "incremental"


class ObjectRecord(_Record):
    """One stored object: what lies in the store, and what it decodes to.

    `chunks` are the SHA-256 of each `chunk_bytes` of what is stored, the last of what is left.
    """

    name: str = Field(min_length=1)
    size_bytes: int = Field(ge=0)
    sha256: Sha256
    plain_bytes: int = Field(ge=0)
    plain_sha256: Sha256
    chunk_bytes: int = Field(gt=0)
    chunks: tuple[Sha256, ...]
    codec: CodecName
    encrypted: bool


class SegmentRecord(_Record):
    """A part of a table's rows: the name of its object and their number."""

    object: str
    rows: int = Field(ge=0)


class FingerprintRecord(_Record):
    """A digest over a sample of a table's rows, taken inside the snapshot."""

    rows: int = Field(ge=0)
    modulus: int = Field(ge=1)
    digest: str


class TableRecord(_Record):
    """A table in the backup."""

    schema_name: str
    name: str
    columns: tuple[str, ...]
    binary: bool
    rows: int = Field(ge=0)
    size_bytes: int = Field(ge=0)
    key: tuple[str, ...] = ()
    segments: tuple[SegmentRecord, ...] = ()
    fingerprint: FingerprintRecord | None = None


class SequenceRecord(_Record):
    """A sequence and where it stands."""

    schema_name: str
    name: str
    last: int
    called: bool


class PostgresRecord(_Record):
    """PostgreSQL's part of a backup."""

    database: str
    server_version: str
    tool_version: str
    system_identifier: str | None = None
    lsn: str
    taken_at: AwareDatetime
    schema_revision: str | None = None
    source_bytes: int = Field(0, ge=0)
    extensions: dict[str, str] = Field(default_factory=dict)
    tables: tuple[TableRecord, ...] = ()
    sequences: tuple[SequenceRecord, ...] = ()
    materialized_views: tuple[tuple[str, str], ...] = ()
    schema_object: str | None = None
    globals_object: str | None = None
    dump_object: str | None = None
    large_objects_object: str | None = None
    large_objects: int = Field(0, ge=0)


class CollectionRecord(_Record):
    """A collection or view of MongoDB; options and indexes are extended JSON."""

    name: str
    view: bool = False
    options: str = "{}"
    indexes: str = "[]"
    documents: int = Field(0, ge=0)
    size_bytes: int = Field(0, ge=0)
    digest: str | None = None
    object: str | None = None
    timeseries: bool = False
    """Its documents are the buckets in which MongoDB keeps the measurements."""


class MongoRecord(_Record):
    """MongoDB's part of a backup."""

    database: str
    server_version: str
    cluster_time: tuple[int, int]
    source_bytes: int = Field(0, ge=0)
    collections: tuple[CollectionRecord, ...] = ()
    accounts_object: str | None = None
    """Users and roles; none: the backup's account may not read them."""


class PhysicalRecord(_Record):
    """A base backup: what the recovery from it needs."""

    base_object: str
    manifest_object: str
    timeline: int = Field(ge=1)
    start_lsn: str
    end_lsn: str | None = None
    first_wal: str
    last_wal: str | None = None
    segment_bytes: int = Field(16 * 2**20, gt=0)


class EncryptionRecord(_Record):
    """How the objects are encrypted: by a data key that the named key opens."""

    algorithm: Literal["AES-256-GCM-STREAM"] = "AES-256-GCM-STREAM"
    key_id: str
    wrapped_key: str
    """Hexadecimal."""

    @classmethod
    def of(cls, wrapped: WrappedKey) -> Self:
        """Return the record of a wrapped key."""
        return cls(key_id=wrapped.key_id, wrapped_key=wrapped.wrapped.hex())

    def wrapped(self) -> WrappedKey:
        """Return the wrapped key.

        Raises:
            BackupCorruptError: it is not hexadecimal.
        """
        try:
            return WrappedKey(self.key_id, bytes.fromhex(self.wrapped_key))
        except ValueError as error:
            message = "the wrapped data key is damaged"
            raise BackupCorruptError(message) from error


class Manifest(_Record):
    """The whole document."""

    format_version: Literal[1] = 1
    id: BackupId
    kind: BackupKind
    cluster: str
    """What is backed up, for telling its backups from those of others in the same store."""
    parent: BackupId | None = None
    """The backup that an incremental stands on."""
    started_at: AwareDatetime
    finished_at: AwareDatetime
    reason: str = "manual"
    actor: str = "unknown"
    samplemind_version: str
    postgres: PostgresRecord | None = None
    mongo: MongoRecord | None = None
    physical: PhysicalRecord | None = None
    gap_ms: float | None = Field(None, ge=0)
    """How far apart the moments of the two stores may be."""
    remarks: tuple[str, ...] = ()
    """What came otherwise than was asked for, in sentences."""
    encryption: EncryptionRecord | None = None
    durations_s: dict[str, float] = Field(default_factory=dict)
    source_bytes: int = Field(0, ge=0)
    objects: tuple[ObjectRecord, ...] = ()

    @property
    def stored_bytes(self) -> int:
        """Bytes that the objects take in the store."""
        return sum(record.size_bytes for record in self.objects)

    @property
    def plain_bytes(self) -> int:
        """Bytes before compression."""
        return sum(record.plain_bytes for record in self.objects)

    @property
    def ratio(self) -> float | None:
        """Stored over plain bytes; none when nothing was stored."""
        return self.stored_bytes / self.plain_bytes if self.plain_bytes else None

    @property
    def sha256(self) -> str:
        """One digest over the names and digests of all objects, in the order of their names."""
        lines = sorted(f"{record.sha256}  {record.name}\n" for record in self.objects)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def object(self, name: str) -> ObjectRecord:
        """Return an object's record.

        Raises:
            BackupCorruptError: the manifest names no such object.
        """
        for record in self.objects:
            if record.name == name:
                return record
        message = f"backup {self.id} has no object {name}"
        raise BackupCorruptError(message)


class SignedDocument(BaseModel):
    """A JSON document with its signature; without a key, with a digest that finds accidents."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    document: dict[str, Any]
    algorithm: Literal["hmac-sha256", "sha256"]
    key_id: str | None
    signature: str


def seal(document: dict[str, Any], keyring: Keyring) -> bytes:
    """Return a document with its signature as JSON."""
    content = _canonical(document)
    if keyring:
        key_id, signature = keyring.sign(content)
        sealed = SignedDocument(
            document=document, algorithm=_SIGNED, key_id=key_id, signature=signature
        )
    else:
        digest = hashlib.sha256(content).hexdigest()
        sealed = SignedDocument(
            document=document, algorithm=_UNSIGNED, key_id=None, signature=digest
        )
    return sealed.model_dump_json(indent=1).encode()


def unseal(content: bytes, keyring: Keyring, name: str) -> tuple[dict[str, Any], str | None]:
    """Return a document and the id of the key that signed it; none: written without a key.

    Args:
        content: the JSON as stored.
        keyring: the keys of ours.
        name: what it is, for the message.

    Raises:
        BackupCorruptError: it is no such JSON, or was changed after it was signed.
        SecretError: the key that signed it is missing.
    """
    try:
        sealed = SignedDocument.model_validate_json(content)
    except ValidationError as error:
        message = f"{name} is damaged: {_first_fault(error)}"
        raise BackupCorruptError(message) from error
    canonical = _canonical(sealed.document)
    if sealed.algorithm == _SIGNED:
        if sealed.key_id is None:
            message = f"{name} is damaged: its signature has no key id"
            raise BackupCorruptError(message)
        right = keyring.check_signature(sealed.key_id, sealed.signature, canonical)
    else:
        digest = hashlib.sha256(canonical).hexdigest()
        right = hmac.compare_digest(digest, sealed.signature)
    if not right:
        message = f"{name} was changed after it was signed"
        raise BackupCorruptError(message)
    return sealed.document, sealed.key_id


def write_manifest(manifest: Manifest, keyring: Keyring) -> bytes:
    """Return a manifest as signed JSON."""
    return seal(manifest.model_dump(mode="json"), keyring)


def read_manifest(content: bytes, keyring: Keyring, backup_id: str) -> Manifest:
    """Return the manifest of that backup.

    Raises:
        BackupCorruptError: it is damaged, was changed, or is another backup's.
        BackupError: its format is newer than this program.
        SecretError: the key that signed it is missing, or it is unsigned though we have keys.
    """
    document, key_id = unseal(content, keyring, f"the manifest of {backup_id}")
    if keyring and key_id is None:
        # Otherwise whoever may write to the store could replace a manifest by leaving it unsigned.
        message = (
            f"the manifest of {backup_id} was written without a key, and keys are set: if it is "
            "yours, `samplemind backup rotate-keys --sign-unsigned` signs it"
        )
        raise SecretError(message)
    return parse_manifest(document, backup_id)


def parse_manifest(document: dict[str, Any], backup_id: str) -> Manifest:
    """Return the manifest in a document whose signature was checked.

    Raises:
        BackupCorruptError: it is damaged or another backup's.
        BackupError: its format is newer than this program.
    """
    version = document.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        message = f"{backup_id} has format {version}; this program reads up to {FORMAT_VERSION}"
        raise BackupError(message)
    try:
        manifest = Manifest.model_validate_json(json.dumps(document))
    except ValidationError as error:
        message = f"the manifest of {backup_id} is damaged: {_first_fault(error)}"
        raise BackupCorruptError(message) from error
    if manifest.id != backup_id:
        message = f"the manifest of {backup_id} is that of {manifest.id}"
        raise BackupCorruptError(message)
    return manifest


def new_backup_id(kind: BackupKind, started_at: datetime, token: str) -> str:
    """Return an id that sorts by time and tells the class: 20261122T031407Z-logical-1a2b3c4d."""
    return f"{started_at:%Y%m%dT%H%M%SZ}-{kind}-{re.sub('[^0-9a-z]', '', token.lower())[:8]}"


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
