"""Objects in Google Cloud Storage, through Google's own client library (the extra `gcs`).

A large upload is one resumable session: the library sends it in parts, and repeats each from where
the server's copy ends.

Invariant: an object appears when its session ends, and the library has the server's CRC32C
compared with its own. A session that never ends is invisible and expires after a week, so there is
nothing to list or abort.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import chain
from typing import Any

from samplemind.errors import (
    NotFoundError,
    SampleMindError,
    SecretError,
    StorageError,
    StoreUnavailableError,
)
from samplemind.settings import StorageSettings
from samplemind.storage.resuming import resume_download
from samplemind.storage.store import Measure, StoredObject, Written, check_key, in_parts

try:
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage
    from google.cloud.storage.retry import DEFAULT_RETRY
    from google.resumable_media import common
    from requests.exceptions import RequestException
except ImportError as _error:
    _MESSAGE = "the client library of Google Cloud Storage is missing: pip install .[gcs]"
    raise StorageError(_MESSAGE) from _error

_SERVER_ERROR = 500
_READ_BYTES = 8 << 20


class GoogleStore:
    """A bucket, or the part of one below a prefix."""

    def __init__(self, settings: StorageSettings) -> None:
        """Make the client; nothing is asked of the store yet.

        Raises:
            SecretError: there are no credentials, or their file cannot be read.
        """
        self._root = f"{settings.prefix.strip('/')}/" if settings.prefix.strip("/") else ""
        self._part_bytes = settings.part_mib * 2**20
        self._attempts = settings.attempts
        retry = DEFAULT_RETRY.with_timeout(settings.timeout_s * settings.attempts)
        self._options: dict[str, Any] = {"timeout": settings.timeout_s, "retry": retry}
        with _translated("the client"):
            self._client = _client(settings)
        self._bucket = self._client.bucket(settings.bucket)

    @property
    def location(self) -> str:
        """The bucket as a URL."""
        return f"gs://{self._bucket.name}/{self._root}".rstrip("/")

    def put_stream(self, key: str, blocks: Iterable[bytes]) -> Written:
        """Store the blocks under the key; an older object is replaced."""
        blob = self._blob(key)
        measure = Measure(blocks)
        parts = in_parts(measure, self._part_bytes)
        first = next(parts, b"")
        if len(first) < self._part_bytes:
            self._put(blob, first)
        else:
            self._upload(blob, chain((first,), parts))
        return measure.result()

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Store a small object where there is none; return whether it was stored."""
        try:
            self.head(key)
        except NotFoundError:
            try:
                self._put(self._blob(key), content, if_generation_match=0)
            except _ExistsError:
                return False
            return True
        return False

    def get_stream(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield an object's bytes from `start`, at most `length` of them."""
        with _translated(key):
            blob = self._bucket.get_blob(self._root + check_key(key), **self._options)
        if blob is None:
            message = f"there is no object {key}"
            raise NotFoundError(message)
        end = blob.size if length is None else min(blob.size, start + length)

        def open_at(offset: int, _: int | None) -> Iterator[bytes]:
            for place in range(offset, end, _READ_BYTES):
                with _translated(key):
                    yield blob.download_as_bytes(
                        start=place,
                        end=min(place + _READ_BYTES, end) - 1,
                        if_generation_match=blob.generation,
                        raw_download=True,
                        **self._options,
                    )

        yield from resume_download(open_at, start, None, self._attempts)

    def head(self, key: str) -> StoredObject:
        """Return an object's size and time."""
        with _translated(key):
            blob = self._bucket.get_blob(self._root + check_key(key), **self._options)
        if blob is None:
            message = f"there is no object {key}"
            raise NotFoundError(message)
        return StoredObject(key, blob.size, blob.updated)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield every object whose key begins with the prefix, in the order of the keys."""
        with _translated(prefix):
            for blob in self._client.list_blobs(
                self._bucket, prefix=self._root + prefix, **self._options
            ):
                yield StoredObject(blob.name.removeprefix(self._root), blob.size, blob.updated)

    def delete(self, key: str) -> None:
        """Remove an object."""
        with suppress(NotFoundError), _translated(key):
            self._blob(key).delete(**self._options)

    def abort_uploads(self, prefix: str, older_than: timedelta) -> int:
        """Return 0: the server forgets sessions that do not end, and shows nothing of them."""
        del prefix, older_than
        return 0

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _blob(self, key: str) -> Any:
        return self._bucket.blob(self._root + check_key(key))

    def _put(self, blob: Any, content: bytes, **condition: Any) -> None:
        with _translated(blob.name, writing=True):
            blob.upload_from_string(
                content,
                content_type="application/octet-stream",
                checksum="crc32c",
                **condition,
                **self._options,
            )

    def _upload(self, blob: Any, parts: Iterable[bytes]) -> None:
        writer = blob.open(
            "wb",
            chunk_size=self._part_bytes,
            content_type="application/octet-stream",
            checksum="crc32c",
            **self._options,
        )
        try:
            for part in parts:  # what the parts raise is not the store's
                with _translated(blob.name, writing=True):
                    writer.write(part)
            with _translated(blob.name, writing=True):
                writer.close()
        except BaseException:
            # What went wrong is what the caller must hear, not that ending the session failed.
            with suppress(SampleMindError), _translated(blob.name):
                writer.terminate()
            raise


class _ExistsError(StorageError):
    """There is an object already."""


def _client(settings: StorageSettings) -> Any:
    options = {"api_endpoint": settings.endpoint} if settings.endpoint else None
    if settings.credentials_file is not None:
        return storage.Client.from_service_account_json(
            str(settings.credentials_file), client_options=options
        )
    if settings.endpoint:
        return storage.Client(
            project="none", credentials=AnonymousCredentials(), client_options=options
        )
    return storage.Client(client_options=options)


@contextmanager
def _translated(key: str, *, writing: bool = False) -> Iterator[None]:
    try:
        yield
    except api.GoogleAPICallError as error:
        raise _meaning(key, int(error.code or 0), writing=writing) from error
    except common.InvalidResponse as error:
        raise _meaning(key, int(error.response.status_code), writing=writing) from error
    except auth.TransportError as error:
        message = f"Google's sign-in did not answer for {key}"
        raise StoreUnavailableError(message) from error
    except (auth.GoogleAuthError, OSError, ValueError) as error:
        if isinstance(error, RequestException):
            message = f"Google Cloud Storage did not answer for {key}: {type(error).__name__}"
            raise StoreUnavailableError(message) from error
        # The library's words may quote the file of credentials.
        message = (
            f"Google's credentials do not work for {key}: {type(error).__name__}; set "
            "SAMPLEMIND_STORAGE_CREDENTIALS_FILE to a service account's file"
        )
        raise SecretError(message) from None
    except (api.RetryError, common.DataCorruption) as error:
        message = f"Google Cloud Storage did not answer for {key}: {type(error).__name__}"
        raise StoreUnavailableError(message) from error


def _meaning(key: str, status: int, *, writing: bool) -> SampleMindError:
    if status == api.NotFound.code:
        # To write, only the bucket must be there.
        return (
            StorageError("there is no such bucket")
            if writing
            else NotFoundError(f"there is no object {key}")
        )
    if status == api.PreconditionFailed.code:
        return _ExistsError(f"{key} exists, or was changed meanwhile")
    if status in (api.Unauthorized.code, api.Forbidden.code):
        return SecretError(f"Google Cloud Storage refuses the credentials for {key}: {status}")
    if status >= _SERVER_ERROR or status in (408, api.TooManyRequests.code):
        return StoreUnavailableError(f"Google Cloud Storage could not serve {key}: {status}")
    return StorageError(f"Google Cloud Storage refuses {key}: {status}")
