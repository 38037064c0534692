"""Recovery to a moment: a base backup and the archive, into a new data directory.

Invariant: the directory is new or empty, gaps in the WAL are found before anything is unpacked,
and the recovered server archives nothing, so it cannot write into the archive that it came from.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from samplemind.backup.archive import WalArchive, choose_base, needed_wal
from samplemind.backup.catalog import Catalog
from samplemind.backup.chains import Chain
from samplemind.backup.control import Control
from samplemind.backup.manifest import Manifest
from samplemind.backup.objects import ObjectReader
from samplemind.backup.physical import unpack_chain
from samplemind.backup.postgres_tools import Server, find_tools
from samplemind.backup.scratch import (
    Reached,
    RecoveryTarget,
    give_to_account,
    recovered_server,
)
from samplemind.backup.workspace import workspace
from samplemind.embedded.account import can_traverse, unprivileged_account
from samplemind.errors import BackupError, ConflictError, InvalidInputError


@dataclass(frozen=True)
class Recovery:
    """A server that was recovered, for as long as the block lasts."""

    backup_id: str
    server: Server
    reached: Reached
    segments: int
    """Files of WAL that were fetched."""
    fetch_s: float
    """Seconds for fetching and unpacking."""


@contextmanager
def recovered(
    catalog: Catalog,
    source: Server,
    target: RecoveryTarget,
    directory: Path,
    control: Control,
    *,
    durable: bool,
) -> Iterator[Recovery]:
    """Recover into a new directory and serve it for the block.

    Args:
        catalog: of the store that holds the base and the archive.
        source: whose users and passwords are in the base; it is never connected to.
        target: where recovery ends.
        directory: new or empty; what a failed recovery left in it is removed again.
        control: cancellation and progress.
        durable: whether the data are kept after the block.

    Raises:
        NotFoundError: there is no base backup from before the target.
        BackupError: a segment of WAL is missing, or the server gave up.
        ConflictError: the directory holds something.
    """
    if any(character in str(directory) for character in "\"'%\\\n"):
        message = f"the path {directory} may hold no quote, percent sign or backslash"
        raise InvalidInputError(message)
    chain = choose_base(catalog.entries(), target)
    base = chain[-1]
    names = needed_wal(base, target, catalog.store, catalog.keyring)
    made = _claim(directory)
    try:
        _require_way(directory)
        with workspace("wal") as wal:
            began = time.monotonic()
            unpack(catalog, chain, directory, control)
            _fetch_wal(catalog, base, names, wal, control)
            give_to_account(directory)
            give_to_account(wal)
            fetch_s = round(time.monotonic() - began, 3)
            control.begin("recovery")
            with recovered_server(directory, source, target, wal, control, durable=durable) as (
                server,
                reached,
            ):
                yield Recovery(base.id, server, reached, len(names), fetch_s)
    except BaseException:
        if made:
            shutil.rmtree(directory, ignore_errors=True)
        else:
            _empty(directory)
        raise


def unpack(catalog: Catalog, chain: Chain, directory: Path, control: Control) -> None:
    """Unpack a base backup with all that it stands on into an empty directory."""
    streams, size = [], 0
    for member in chain:
        physical = member.physical
        if physical is None:
            message = f"{member.id} is no base backup"
            raise BackupError(message)
        record = member.object(physical.base_object)
        size += record.plain_bytes
        reader = ObjectReader(catalog.store, member.id, catalog.data_key(member))
        streams.append(control.watch(reader.read(record)))
    control.begin("base backup", size)
    unpack_chain(streams, directory, lambda major: find_tools(major, "pg_combinebackup"))


def _fetch_wal(
    catalog: Catalog, base: Manifest, names: list[str], wal: Path, control: Control
) -> None:
    identifier = base.postgres.system_identifier if base.postgres else None
    if not names or identifier is None or base.physical is None:
        return
    archive = WalArchive.open(catalog.store, catalog.keyring, identifier)
    size = base.physical.segment_bytes
    control.begin("WAL", len(names) * size)
    for name in names:
        archive.fetch([name], wal, size)
        control.passed(size)


def _require_way(directory: Path) -> None:
    account = unprivileged_account()
    if account is not None and not can_traverse(directory.parent, account):
        message = (
            f"{account.name}, as whom PostgreSQL runs, cannot enter {directory.parent}: open the "
            "way with chmod o+x, or choose another place"
        )
        raise BackupError(message)


def _claim(directory: Path) -> bool:
    """Make the directory; return whether it was made and not only found empty."""
    try:
        directory.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        if not directory.is_dir() or any(directory.iterdir()):
            message = (
                f"{directory} is not empty: recovery needs a new data directory; what a recovery "
                "that was killed has left there is for you to remove"
            )
            raise ConflictError(message) from None
        return False
    except OSError as error:
        message = f"{directory} cannot be made: {error.strerror}"
        raise BackupError(message) from error
    return True


def _empty(directory: Path) -> None:
    for place in directory.iterdir():
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)
