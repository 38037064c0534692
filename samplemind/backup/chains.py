"""Chains of base backups: a full one, and incrementals that each stand on the one before.

Invariant: a chain is used whole or not at all: every member is there, is good, and is of one server
and one timeline. Nothing here reads a store; it decides over the catalogue's entries.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from samplemind.backup.catalog import CatalogEntry
from samplemind.backup.manifest import BackupKind, Manifest
from samplemind.backup.physical import BaseFacts
from samplemind.backup.wal import parse_lsn
from samplemind.errors import BackupError

FIRST_MAJOR = 17
"""The first version of PostgreSQL that makes incremental backups."""

Chain = tuple[Manifest, ...]
"""The full base backup first, the one that is meant last."""


@dataclass(frozen=True)
class Footing:
    """What the next incremental stands on, or why a full backup has to be taken instead."""

    parent: Manifest | None
    refusal: str | None = None


def find_chain(backup_id: str, entries: Iterable[CatalogEntry]) -> Chain:
    """Return the backup with all that it stands on.

    Raises:
        BackupError: a member is missing or is not good; the message names it.
    """
    by_id = {entry.id: entry for entry in entries}
    chain: list[Manifest] = []
    wanted: str | None = backup_id
    while wanted is not None:
        entry = by_id.get(wanted)
        if entry is None or entry.manifest is None:
            message = f"{backup_id} stands on {wanted}, which is missing or cannot be read"
            raise BackupError(message)
        if chain and not entry.good:
            message = f"{backup_id} stands on {wanted}, which failed its verification"
            raise BackupError(message)
        if any(member.id == wanted for member in chain):
            message = f"{backup_id} stands on itself"
            raise BackupError(message)
        chain.append(entry.manifest)
        wanted = entry.manifest.parent
    if chain[-1].kind is BackupKind.INCREMENTAL:
        message = f"{chain[-1].id} is an incremental that stands on nothing"
        raise BackupError(message)
    return tuple(reversed(chain))


def usable_chains(entries: Sequence[CatalogEntry]) -> Iterator[Chain]:
    """Yield the chain of each base backup that recovery can begin from, the newest first."""
    for entry in entries:
        if entry.manifest is None or entry.manifest.physical is None or not entry.good:
            continue
        try:
            yield find_chain(entry.id, entries)
        except BackupError:
            continue  # what `verify` says of it; recovery takes an older one


def choose_footing(entries: Sequence[CatalogEntry], facts: BaseFacts, most: int) -> Footing:
    """Return what an incremental backup of this server stands on.

    Args:
        entries: of the catalogue, the newest first.
        facts: what the server says of itself now.
        most: incrementals in a chain; then a full backup begins the next one.
    """
    if facts.major < FIRST_MAJOR:
        return Footing(
            None,
            f"PostgreSQL {facts.major} makes no incremental backups: {FIRST_MAJOR} is the first "
            "version that does",
        )
    if not facts.summarizes:
        return Footing(
            None,
            "the server does not summarise its WAL: ALTER SYSTEM SET summarize_wal = on; SELECT "
            "pg_reload_conf(); lets the next one be incremental",
        )
    chain = next((each for each in usable_chains(entries) if _is_of(each[-1], facts)), None)
    if chain is None:
        return Footing(None, "there is no good base backup of this server to stand on")
    if len(chain) > most:
        return Footing(
            None, f"the chain of {chain[0].id} has its {most} incrementals: a new one begins"
        )
    newest = chain[-1]
    assert newest.physical is not None  # noqa: S101 - it was chosen by this
    since = facts.summarized_since
    if since is None or parse_lsn(since) > parse_lsn(newest.physical.start_lsn):
        return Footing(
            None,
            f"the server has no summaries of all its WAL since {newest.id} (they begin with "
            "summarize_wal and are kept for wal_summary_keep_time)",
        )
    return Footing(newest)


def _is_of(manifest: Manifest, facts: BaseFacts) -> bool:
    physical, postgres = manifest.physical, manifest.postgres
    return (
        physical is not None
        and postgres is not None
        and postgres.system_identifier == facts.system_identifier
        and physical.timeline == facts.timeline
        and postgres.server_version.split(".")[0] == facts.server_version.split(".")[0]
    )
