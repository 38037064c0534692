"""Objects in Azure Blob Storage, through Microsoft's own client library (the extra `azure`).

A large upload is staged in blocks, of which one is sent while the next is made, and appears when
their list is committed.

Invariant: blocks that were never committed are invisible, replace nothing, and are dropped by the
server after a week, so there is nothing to list or abort. Each block carries its MD5.
"""

import base64
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import chain
from typing import Any

from pydantic import SecretStr

from samplemind.errors import (
    NotFoundError,
    SampleMindError,
    SecretError,
    StorageError,
    StoreUnavailableError,
)
from samplemind.ids import new_id
from samplemind.settings import PREFIX, StorageSettings
from samplemind.storage.parts import send_parts
from samplemind.storage.resuming import resume_download
from samplemind.storage.store import Measure, StoredObject, Written, check_key, in_parts

try:
    from azure.core import MatchConditions
    from azure.core.credentials import AzureNamedKeyCredential
    from azure.core.exceptions import (
        AzureError,
        ClientAuthenticationError,
        HttpResponseError,
        ResourceExistsError,
        ResourceNotFoundError,
    )
    from azure.storage.blob import BlobBlock, BlobClient, BlobServiceClient
except ImportError as _error:
    _MESSAGE = "the client library of Azure Blob Storage is missing: pip install .[azure]"
    raise StorageError(_MESSAGE) from _error

_SERVER_ERROR = 500
_DOUBLE_AFTER_PARTS = 10_000
_READ_BYTES = 8 << 20


class AzureStore:
    """A container, or the part of one below a prefix."""

    def __init__(self, settings: StorageSettings) -> None:
        """Make the client; nothing is asked of the store yet.

        Raises:
            SecretError: neither an account's key nor another way to sign in is there.
        """
        assert settings.bucket is not None  # noqa: S101 - the settings' own check
        self._root = f"{settings.prefix.strip('/')}/" if settings.prefix.strip("/") else ""
        self._part_bytes = settings.part_mib * 2**20
        self._attempts = settings.attempts
        self._service = BlobServiceClient(
            _account_url(settings),
            credential=_credential(settings),
            retry_total=settings.attempts - 1,
            retry_connect=settings.attempts - 1,
            retry_read=settings.attempts - 1,
            retry_status=settings.attempts - 1,
            connection_timeout=min(10, settings.timeout_s),
            read_timeout=settings.timeout_s,
            max_single_get_size=_READ_BYTES,
            max_chunk_get_size=_READ_BYTES,
            max_single_put_size=settings.part_mib * 2**20,
        )
        self._container = self._service.get_container_client(settings.bucket)

    @property
    def location(self) -> str:
        """The container as a URL."""
        return f"{self._container.primary_endpoint}/{self._root}".rstrip("/")

    def put_stream(self, key: str, blocks: Iterable[bytes]) -> Written:
        """Store the blocks under the key; an older object is replaced."""
        blob = self._blob(key)
        measure = Measure(blocks)
        parts = in_parts(measure, self._part_bytes, _DOUBLE_AFTER_PARTS)
        first = next(parts, b"")
        if len(first) < self._part_bytes:
            with _translated(key, writing=True):
                blob.upload_blob(first, overwrite=True, validate_content=True)
        else:
            self._upload(key, blob, chain((first,), parts))
        return measure.result()

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Store a small object where there is none; return whether it was stored."""
        with _translated(key, writing=True):
            try:
                self._blob(key).upload_blob(content, overwrite=False, validate_content=True)
            except ResourceExistsError:
                return False
        return True

    def get_stream(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield an object's bytes from `start`, at most `length` of them."""
        blob = self._blob(key)
        with _translated(key):
            found = blob.get_blob_properties()
        end = found.size if length is None else min(found.size, start + length)

        def open_at(offset: int, _: int | None) -> Iterator[bytes]:
            for place in range(offset, end, _READ_BYTES):
                with _translated(key):
                    yield blob.download_blob(
                        place,
                        min(_READ_BYTES, end - place),
                        # A later request must not get another object's bytes.
                        etag=found.etag,
                        match_condition=MatchConditions.IfNotModified,
                    ).readall()

        yield from resume_download(open_at, start, None, self._attempts)

    def head(self, key: str) -> StoredObject:
        """Return an object's size and time."""
        with _translated(key):
            found = self._blob(key).get_blob_properties()
        return StoredObject(key, found.size, found.last_modified)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield every object whose key begins with the prefix, in the order of the keys."""
        with _translated(prefix):
            for found in self._container.list_blobs(name_starts_with=self._root + prefix):
                yield StoredObject(
                    found.name.removeprefix(self._root), found.size, found.last_modified
                )

    def delete(self, key: str) -> None:
        """Remove an object."""
        with suppress(NotFoundError), _translated(key):
            self._blob(key).delete_blob()

    def abort_uploads(self, prefix: str, older_than: timedelta) -> int:
        """Return 0: the server drops blocks that were not committed, and nobody sees them."""
        del prefix, older_than
        return 0

    def close(self) -> None:
        """Close the connections."""
        self._service.close()

    def _blob(self, key: str) -> BlobClient:
        return self._container.get_blob_client(self._root + check_key(key))

    def _upload(self, key: str, blob: BlobClient, parts: Iterable[bytes]) -> None:
        # Of this upload alone, as two of one key would take each other's blocks.
        upload = new_id().hex

        def send(number: int, part: bytes) -> BlobBlock:
            block = base64.b64encode(f"{upload}{number:08d}".encode()).decode()
            with _translated(key, writing=True):
                blob.stage_block(block, part, validate_content=True)
            return BlobBlock(block)

        staged = send_parts(parts, send)
        with _translated(key, writing=True):
            blob.commit_block_list(list(staged))


def _account_url(settings: StorageSettings) -> str:
    if settings.endpoint:
        return settings.endpoint
    if settings.access_key is None:
        message = (
            f"Azure needs {PREFIX}STORAGE_ACCESS_KEY (the account's name) and …_SECRET_KEY, or "
            f"{PREFIX}STORAGE_ENDPOINT (the account's URL) to sign in as this machine"
        )
        raise SecretError(message)
    return f"https://{settings.access_key.get_secret_value()}.blob.core.windows.net"


def _credential(settings: StorageSettings) -> Any:
    name, key = settings.access_key, settings.secret_key
    if isinstance(name, SecretStr) and isinstance(key, SecretStr):
        return AzureNamedKeyCredential(name.get_secret_value(), key.get_secret_value())
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError as error:
        message = "signing in to Azure without a key needs azure-identity: pip install .[azure]"
        raise StorageError(message) from error
    return DefaultAzureCredential()


@contextmanager
def _translated(key: str, *, writing: bool = False) -> Iterator[None]:
    try:
        yield
    except ResourceNotFoundError as error:
        if writing:  # only the container must be there
            message = "there is no such container"
            raise StorageError(message) from error
        message = f"there is no object {key}"
        raise NotFoundError(message) from error
    except ClientAuthenticationError as error:
        message = f"Azure refuses the credentials for {key}"
        raise SecretError(message) from error
    except HttpResponseError as error:
        raise _meaning(key, error) from error
    except AzureError as error:
        message = f"Azure did not answer for {key}: {type(error).__name__}"
        raise StoreUnavailableError(message) from error


def _meaning(key: str, error: HttpResponseError) -> SampleMindError:
    status = error.status_code or _SERVER_ERROR
    code = getattr(error, "error_code", None) or status
    if status == 403:
        return SecretError(f"Azure refuses the credentials for {key}: {code}")
    if status >= _SERVER_ERROR or status in (408, 429) or code == "Md5Mismatch":
        return StoreUnavailableError(f"Azure could not serve {key}: {code}")
    return StorageError(f"Azure refuses {key}: {code}")
