"""Changing the operator's key: every wrapped data key is wrapped anew, every signature made anew.

Invariant: no object of a backup is read or written, only its small documents, each in one step.
Whoever is killed in between leaves documents of both keys, all readable, and the next run goes on.
An old key may be taken out of the settings once a run has found nothing to do.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from samplemind.backup.catalog import CATALOG, Catalog
from samplemind.backup.manifest import EncryptionRecord, seal, unseal
from samplemind.errors import BackupError, NotFoundError, SecretError
from samplemind.storage.store import read_small

_WAL_ARCHIVE = re.compile(r"wal/(?P<id>[^/]+)/archive\.json")


@dataclass(frozen=True)
class Rotation:
    """What a run has done."""

    key_id: str
    renewed: int
    current: int
    """Documents that stood under the current key before."""
    problems: tuple[str, ...]


def rotate_keys(catalog: Catalog, *, sign_unsigned: bool, dry_run: bool = False) -> Rotation:
    """Bring every document under the current key.

    Args:
        catalog: with the old keys and the new one, which comes first.
        sign_unsigned: whether documents that were written without a key are trusted and signed.
        dry_run: whether only to tell.

    Raises:
        SecretError: there is no key.
    """
    key_id = catalog.keyring.current_id
    if key_id is None:
        message = "no backup key is set: set SAMPLEMIND_BACKUP_KEYS or SAMPLEMIND_BACKUP_KEY_FILE"
        raise SecretError(message)
    renewed = current = 0
    problems: list[str] = []
    for key in _documents(catalog):
        try:
            document, signer = unseal(read_small(catalog.store, key), catalog.keyring, key)
            if signer is None and not sign_unsigned:
                problems.append(f"{key} was written without a key: --sign-unsigned would sign it")
                continue
            rewrapped = _rewrap(catalog, key, document)
        except NotFoundError:
            continue  # deleted meanwhile
        except (BackupError, SecretError) as error:
            problems.append(f"{key}: {error}")
            continue
        if signer == key_id and not rewrapped:
            current += 1
            continue
        renewed += 1
        if not dry_run:
            catalog.store.put_stream(key, [seal(document, catalog.keyring)])
    return Rotation(key_id, renewed, current, tuple(problems))


def _documents(catalog: Catalog) -> Iterator[str]:
    for stored in list(catalog.store.list(f"{CATALOG}/")):
        if stored.key.endswith(".json") and not stored.key.endswith("/deleted.json"):
            yield stored.key
    for stored in catalog.store.list("wal/"):
        if _WAL_ARCHIVE.fullmatch(stored.key):
            yield stored.key


def _rewrap(catalog: Catalog, key: str, document: dict[str, Any]) -> bool:
    """Wrap the document's data key anew where it has one of another key; return whether it did."""
    encryption = document.get("encryption")
    if encryption is None:
        return False
    record = EncryptionRecord.model_validate(encryption)
    if record.key_id == catalog.keyring.current_id:
        return False
    archive = _WAL_ARCHIVE.fullmatch(key)
    name = f"wal-{archive['id']}" if archive else key.split("/")[1]
    data_key = catalog.keyring.unwrap(name, record.wrapped())
    document["encryption"] = EncryptionRecord.of(catalog.keyring.wrap(data_key)).model_dump(
        mode="json"
    )
    return True
