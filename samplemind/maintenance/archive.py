"""Where archives go: into the store of the backups, or into a folder of their own on this machine.

Invariant: an object is there whole or not at all, and a second `put` of the same key replaces it.
"""

from pathlib import Path

from samplemind.settings import Settings, StorageKind
from samplemind.storage.local import LocalStore
from samplemind.storage.opening import open_store
from samplemind.storage.store import ObjectStore, read_small

FOLDER = "archives"
"""What the keys in a shared store begin with."""

_MOST_BYTES = 256 * 2**20


class Archive:
    """Small objects by key, in an object store."""

    def __init__(self, store: ObjectStore, folder: str = "") -> None:
        """Take the store, and the folder in it that everything lies in."""
        self._store = store
        self._folder = folder

    def put(self, key: str, content: bytes) -> None:
        """Store an object; when it returns, the object would survive a crash.

        Raises:
            StoreUnavailableError: the store did not answer.
            StorageError: it refused.
        """
        self._store.put_stream(self._place(key), [content])

    def get(self, key: str) -> bytes:
        """Return an object.

        Raises:
            NotFoundError: there is none of this key.
            StoreUnavailableError: the store did not answer.
        """
        return read_small(self._store, self._place(key), _MOST_BYTES)

    def _place(self, key: str) -> str:
        return f"{self._folder}/{key}" if self._folder else key


def archive_root(settings: Settings) -> Path:
    """Return the folder that archives go to where the store is this machine's."""
    return settings.maintenance.archive or settings.home / "archive"


def open_archive(settings: Settings) -> Archive:
    """Return the archive of the settings: a folder if one is named, or else the backups' store.

    Raises:
        StorageError: the store's client library is not installed.
        SecretError: its credentials are missing.
    """
    if settings.maintenance.archive or settings.storage.kind is StorageKind.LOCAL:
        return Archive(LocalStore(archive_root(settings)))
    return Archive(open_store(settings.storage, settings.home), FOLDER)
