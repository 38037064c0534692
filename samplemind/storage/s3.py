"""Objects in S3, or in a server that speaks its protocol.

A small object is one request; a larger one a multipart upload, of which one part is sent while the
next is made. Each carries its MD5, which every such server compares, where newer checksums are
refused by some. Requests are repeated by the client library, downloads go on from where they broke.

Invariant: an object appears when its upload is completed. An upload that fails is aborted; one
whose process died is found by `abort_uploads`.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from pydantic import SecretStr

from samplemind.errors import (
    NotFoundError,
    SampleMindError,
    SecretError,
    StorageError,
    StoreUnavailableError,
)
from samplemind.ids import new_id
from samplemind.settings import ServerSideEncryption, StorageSettings
from samplemind.storage.parts import send_parts
from samplemind.storage.resuming import resume_download
from samplemind.storage.store import Measure, StoredObject, Written, check_key, in_parts

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

MAX_PARTS = 10_000
_DOUBLE_AFTER_PARTS = 2_500
_READ_BYTES = 1 << 20
_SERVER_ERROR = 500
_CONNECTIONS = 32
_UPLOAD_MARK = "samplemind-upload"

_MISSING = {"404", "NoSuchKey", "NotFound"}
_BAD_CREDENTIALS = {
    "403",
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
# Repeating these may help, though the client library does not.
_TRANSIENT = {
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "NoSuchUpload",
    "OperationAborted",
    "RequestTimeTooSkewed",
    "RequestTimeout",
    "SlowDown",
    "XAmzContentSHA256Mismatch",
}


class S3Store:
    """A bucket, or the part of one below a prefix."""

    def __init__(self, settings: StorageSettings) -> None:
        """Make the client; nothing is asked of the store yet."""
        assert settings.bucket is not None  # noqa: S101 - the settings' own check
        self._bucket = settings.bucket
        self._root = f"{settings.prefix.strip('/')}/" if settings.prefix.strip("/") else ""
        self._part_bytes = settings.part_mib * 2**20
        self._attempts = settings.attempts
        self._encryption = _encryption(settings)
        with _translated("the client"):
            self._client: S3Client = boto3.session.Session().client(
                "s3",
                endpoint_url=settings.endpoint,
                region_name=settings.region or ("us-east-1" if settings.endpoint else None),
                aws_access_key_id=_secret(settings.access_key),
                aws_secret_access_key=_secret(settings.secret_key),
                config=Config(
                    connect_timeout=min(10, settings.timeout_s),
                    read_timeout=settings.timeout_s,
                    retries={"mode": "standard", "total_max_attempts": settings.attempts},
                    max_pool_connections=_CONNECTIONS,
                    # Servers other than Amazon's refuse the newer checksums' trailers.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    s3={"addressing_style": "path" if settings.endpoint else "auto"},
                ),
            )

    @property
    def location(self) -> str:
        """The bucket as a URL."""
        return f"s3://{self._bucket}/{self._root}".rstrip("/")

    def put_stream(self, key: str, blocks: Iterable[bytes]) -> Written:
        """Store the blocks under the key; an older object is replaced."""
        name = self._name(key)
        measure = Measure(blocks)
        # Equal parts for as long as they suffice, as some servers want them; then larger ones.
        parts = in_parts(measure, self._part_bytes, _DOUBLE_AFTER_PARTS)
        first = next(parts, b"")
        second = next(parts, None) if len(first) == self._part_bytes else None
        if second is None:
            self._put(name, first)
        else:
            self._upload(name, chain((first, second), parts))
        return measure.result()

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Store a small object where there is none; return whether it was stored.

        Where a server does not know conditional requests, looking first is the best there is.
        """
        name = self._name(key)
        if self._found(name):
            return False
        try:
            self._put(name, content, IfNoneMatch="*")
        except _ExistsError:
            return False
        except _UnknownConditionError:
            self._put(name, content)
        return True

    def get_stream(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield an object's bytes from `start`, at most `length` of them."""
        name = self._name(key)
        version: dict[str, Any] = {}  # a later request must not get another object's bytes

        def open_at(offset: int, left: int | None) -> Iterator[bytes]:
            end = "" if left is None else offset + left - 1
            ranged: dict[str, Any] = {}
            if offset or left is not None:
                ranged["Range"] = f"bytes={offset}-{end}"
            with _translated(key):
                try:
                    answer = self._client.get_object(
                        Bucket=self._bucket, Key=name, **ranged, **version
                    )
                except ClientError as error:
                    if _code(error) == "InvalidRange":
                        return  # it begins at or after the object's end
                    raise
                version["IfMatch"] = answer["ETag"]
                body = answer["Body"]
                try:
                    yield from body.iter_chunks(_READ_BYTES)
                finally:
                    body.close()

        return resume_download(open_at, start, length, self._attempts)

    def head(self, key: str) -> StoredObject:
        """Return an object's size and time."""
        with _translated(key):
            answer = self._client.head_object(Bucket=self._bucket, Key=self._name(key))
        return StoredObject(key, answer["ContentLength"], answer["LastModified"])

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield every object whose key begins with the prefix, in the order of the keys."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._root + prefix
        )
        with _translated(prefix):
            for page in pages:
                for found in page.get("Contents", ()):
                    yield StoredObject(
                        found["Key"].removeprefix(self._root), found["Size"], found["LastModified"]
                    )

    def delete(self, key: str) -> None:
        """Remove an object."""
        with _translated(key), suppress(NotFoundError):
            self._client.delete_object(Bucket=self._bucket, Key=self._name(key))

    def abort_uploads(self, prefix: str, older_than: timedelta) -> int:
        """Abort multipart uploads below the prefix that began so long ago."""
        before = datetime.now(UTC) - older_than
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._bucket, Prefix=self._root + prefix
        )
        aborted = 0
        with _translated(prefix):
            try:
                open_uploads = [
                    upload
                    for page in pages
                    for upload in page.get("Uploads", ())
                    if upload["Initiated"] < before
                ]
            except ClientError as error:
                if _code(error) == "NoSuchUpload":
                    return 0  # the word of some servers for none
                raise
            for upload in open_uploads:
                if self._abort(upload["Key"], upload["UploadId"]):
                    aborted += 1
        return aborted

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _name(self, key: str) -> str:
        return self._root + check_key(key)

    def _found(self, name: str) -> bool:
        try:
            with _translated(name):
                self._client.head_object(Bucket=self._bucket, Key=name)
        except NotFoundError:
            return False
        return True

    def _put(self, name: str, content: bytes, **condition: Any) -> None:
        with _translated(name):
            self._client.put_object(
                Bucket=self._bucket,
                Key=name,
                Body=content,
                ContentMD5=_md5(content),
                **condition,
                **self._encryption,
            )

    def _upload(self, name: str, parts: Iterable[bytes]) -> None:
        mark = str(new_id())
        with _translated(name):
            upload_id = self._client.create_multipart_upload(
                Bucket=self._bucket, Key=name, Metadata={_UPLOAD_MARK: mark}, **self._encryption
            )["UploadId"]
        try:
            sent = send_parts(parts, partial(self._send, name, upload_id))
            self._complete(name, upload_id, sent, mark)
        except BaseException:
            # What went wrong is what the caller must hear, not that aborting failed as well.
            with suppress(SampleMindError):
                self._abort(name, upload_id)
            raise

    def _send(self, name: str, upload_id: str, number: int, part: bytes) -> "CompletedPartTypeDef":
        if number > MAX_PARTS:
            message = f"{name} needs more than {MAX_PARTS} parts: raise SAMPLEMIND_STORAGE_PART_MIB"
            raise StorageError(message)
        with _translated(name):
            answer = self._client.upload_part(
                Bucket=self._bucket,
                Key=name,
                UploadId=upload_id,
                PartNumber=number,
                Body=part,
                ContentMD5=_md5(part),
            )
        return {"ETag": answer["ETag"], "PartNumber": number}

    def _complete(
        self, name: str, upload_id: str, parts: "Sequence[CompletedPartTypeDef]", mark: str
    ) -> None:
        try:
            with _translated(name):
                self._client.complete_multipart_upload(
                    Bucket=self._bucket,
                    Key=name,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": parts},
                )
        except StoreUnavailableError:
            # An answer that was lost leaves the object complete and the upload unknown.
            if not self._is_ours(name, mark):
                raise

    def _is_ours(self, name: str, mark: str) -> bool:
        try:
            with _translated(name):
                found = self._client.head_object(Bucket=self._bucket, Key=name)
        except SampleMindError:
            return False
        metadata = {key.lower(): value for key, value in found["Metadata"].items()}
        return metadata.get(_UPLOAD_MARK) == mark

    def _abort(self, name: str, upload_id: str) -> bool:
        with _translated(name):
            try:
                self._client.abort_multipart_upload(
                    Bucket=self._bucket, Key=name, UploadId=upload_id
                )
            except ClientError as error:
                if _code(error) == "NoSuchUpload":
                    return False  # somebody else's abort was first
                raise
        return True


class _ExistsError(StorageError):
    """There is an object already."""


class _UnknownConditionError(StorageError):
    """The server does not know conditional requests."""


def _encryption(settings: StorageSettings) -> dict[str, Any]:
    if settings.server_side_encryption is None:
        return {}
    options: dict[str, Any] = {"ServerSideEncryption": settings.server_side_encryption.value}
    if settings.server_side_encryption is ServerSideEncryption.KMS and settings.kms_key_id:
        options["SSEKMSKeyId"] = settings.kms_key_id
    return options


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()


def _md5(content: bytes) -> str:
    # It finds what the network damaged; what an attacker changed, our own sums find.
    digest = hashlib.md5(content, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        raise _meaning(key, error) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        message = "no credentials for S3: set SAMPLEMIND_STORAGE_ACCESS_KEY and …_SECRET_KEY"
        raise SecretError(message) from error
    except ParamValidationError as error:
        message = f"S3 cannot store {key}: {error}"
        raise StorageError(message) from error
    except BotoCoreError as error:
        message = f"S3 did not answer for {key}: {type(error).__name__}"
        raise StoreUnavailableError(message) from error


def _meaning(key: str, error: ClientError) -> SampleMindError:
    code = _code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _MISSING:
        return NotFoundError(f"there is no object {key}")
    if code == "PreconditionFailed":
        return _ExistsError(f"{key} exists, or was changed meanwhile")
    if code == "NotImplemented":
        return _UnknownConditionError(f"the server does not do what was asked for {key}")
    if code in _BAD_CREDENTIALS:
        return SecretError(f"S3 refuses the credentials for {key}: {code}")
    if code in _TRANSIENT or status >= _SERVER_ERROR:
        return StoreUnavailableError(f"S3 could not serve {key}: {code}")
    return StorageError(f"S3 refuses {key}: {code}")
