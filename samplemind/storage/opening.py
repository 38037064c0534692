"""Which store the settings mean.

Invariant: a store's client library is imported only when that store is used.
"""

from pathlib import Path

from samplemind.settings import StorageKind, StorageSettings
from samplemind.storage.local import LocalStore
from samplemind.storage.store import ObjectStore


def open_store(settings: StorageSettings, home: Path) -> ObjectStore:
    """Return the store of these settings; nothing is asked of it yet.

    Args:
        settings: the kind, the place and the credentials.
        home: where a local store without a path lies, in `backups`.

    Raises:
        StorageError: the store's client library is not installed; the message names the extra.
        SecretError: credentials are missing or cannot be read.
    """
    if settings.kind is StorageKind.S3:
        from samplemind.storage.s3 import S3Store

        return S3Store(settings)
    if settings.kind is StorageKind.GCS:
        from samplemind.storage.gcs import GoogleStore

        return GoogleStore(settings)
    if settings.kind is StorageKind.AZURE:
        from samplemind.storage.azure import AzureStore

        return AzureStore(settings)
    return LocalStore(settings.path or home / "backups")
