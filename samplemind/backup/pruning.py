"""Carrying a retention plan out, and removing what dead uploads have left.

Invariant: a backup is marked before anything of it goes, and the mark goes last, so whoever is
killed in between leaves something that the next run recognises and ends. A hold that comes while a
backup is being marked is seen by one of the two.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from samplemind.backup.catalog import Catalog, CatalogEntry, Leftover
from samplemind.backup.manifest import BackupKind
from samplemind.backup.retention import Kept, Plan, Policy, plan_retention
from samplemind.log import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True)
class Pruned:
    """What went, or with a dry run would go."""

    plan: Plan
    deleted: tuple[str, ...]
    freed_bytes: int
    leftovers: tuple[Leftover, ...]
    aborted_uploads: int
    kept_back: tuple[str, ...]
    """Put on hold while the run was under way."""


def plan_pruning(entries: list[CatalogEntry], policy: Policy, now: datetime) -> Plan:
    """Return what the policy keeps and deletes of the catalogue's backups."""
    return plan_retention([_fact(entry) for entry in entries], policy, now)


def prune(
    catalog: Catalog,
    policy: Policy,
    grace: timedelta,
    *,
    dry_run: bool,
    check: Callable[[], None] = lambda: None,
) -> Pruned:
    """Delete what the policy does not keep, and what dead uploads left longer ago than the grace.

    Args:
        catalog: of the store.
        policy: how long and how many.
        grace: how long something unfinished may be at work still.
        dry_run: whether only to tell.
        check: is called before each deletion; what it raises ends the run.
    """
    now = catalog.now()
    entries = {entry.id: entry for entry in catalog.entries()}
    plan = plan_pruning(list(entries.values()), policy, now)
    leftovers = tuple(catalog.leftovers(grace))
    if dry_run:
        freed = sum(_stored_bytes(entries[backup_id]) for backup_id in plan.delete)
        return Pruned(plan, tuple(plan.delete), freed, leftovers, 0, ())
    deleted: list[str] = []
    kept_back: list[str] = []
    freed = 0
    for backup_id, reason in plan.delete.items():
        check()
        # What an incremental that was just kept back stands on must stay with it.
        if any(entries[held].manifest_parent == backup_id for held in kept_back):
            kept_back.append(backup_id)
        elif catalog.delete_unless_held(backup_id):
            deleted.append(backup_id)
            freed += _stored_bytes(entries[backup_id])
            _log.info("backup_deleted", backup_id=backup_id, reason=reason.value)
        else:
            kept_back.append(backup_id)
    for leftover in leftovers:
        check()
        if not catalog.delete_unless_held(leftover.id):
            continue  # a deletion that was interrupted before it began, and then forbidden
        freed += leftover.size_bytes
        _log.info("backup_leftover_deleted", backup_id=leftover.id, size_bytes=leftover.size_bytes)
    aborted = catalog.store.abort_uploads("", grace)
    return Pruned(plan, tuple(deleted), freed, leftovers, aborted, tuple(kept_back))


def _fact(entry: CatalogEntry) -> Kept:
    manifest = entry.manifest
    return Kept(
        id=entry.id,
        cluster=manifest.cluster if manifest else "",
        kind=manifest.kind if manifest else BackupKind.LOGICAL,
        started_at=entry.started_at,
        good=entry.good,
        held=entry.hold is not None,
        readable=manifest is not None,
        parent=entry.manifest_parent,
        finished_at=manifest.finished_at if manifest else None,
    )


def _stored_bytes(entry: CatalogEntry) -> int:
    return entry.manifest.stored_bytes if entry.manifest else 0
