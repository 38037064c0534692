"""Copies of backups in a directory of this machine, beside those in the store.

Invariant: a copy is listed there only when it is whole, byte by byte as its manifest says, with
all that it stands on. The same rules decide over copies as over the backups, and what is on hold
in the store is on hold here; but nothing goes because the store lost it: then copies are all that
is left.
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from samplemind.backup.catalog import Catalog, CatalogEntry
from samplemind.backup.chains import find_chain
from samplemind.backup.manifest import Manifest
from samplemind.backup.objects import ObjectReader, object_key
from samplemind.backup.pruning import Pruned, prune
from samplemind.backup.retention import Policy
from samplemind.errors import BackupError, NotFoundError, SampleMindError
from samplemind.storage.local import LocalStore


def copy_backup(catalog: Catalog, manifest: Manifest, folder: Path) -> None:
    """Copy a backup, and what it stands on, as they are stored; manifests last.

    Raises:
        BackupError: it could not be copied; the backup itself is good.
    """
    try:
        _copy(catalog, manifest, folder)
    except SampleMindError as error:
        # No temporary error: to do the job again would make another backup.
        message = f"{manifest.id} is made and listed, but was not copied to {folder}: {error}"
        raise BackupError(message) from error


def prune_copies(
    catalog: Catalog,
    folder: Path,
    policy: Policy,
    grace: timedelta,
    *,
    dry_run: bool,
    check: Callable[[], None],
) -> Pruned:
    """Delete the copies that the policy does not keep, and what unfinished ones have left."""
    copies = Catalog(LocalStore(folder), catalog.keyring)
    if not dry_run:
        _follow_holds(catalog.entries(), copies)
    return prune(copies, policy, grace, dry_run=dry_run, check=check)


def _copy(catalog: Catalog, manifest: Manifest, folder: Path) -> None:
    copies = Catalog(LocalStore(folder), catalog.keyring)
    there = {entry.id for entry in copies.entries()}
    for each in find_chain(manifest.id, catalog.entries()):
        if each.id in there:
            continue
        reader = ObjectReader(catalog.store, each.id)
        for record in each.objects:
            copies.store.put_stream(object_key(each.id, record.name), reader.read_stored(record))
        copies.publish(each)


def _follow_holds(entries: list[CatalogEntry], copies: Catalog) -> None:
    holds = {entry.id: entry.hold for entry in entries}
    for copy in copies.entries():
        reason = holds.get(copy.id)
        try:
            if reason is not None and copy.hold is None:
                copies.hold(copy.id, reason, "the store", copies.now())
            elif copy.id in holds and reason is None and copy.hold is not None:
                copies.release(copy.id)
        except NotFoundError:
            continue  # another run deletes it just now
