"""`samplemind backup list|prune|hold|release|history|rotate-keys`: the catalogue and its upkeep."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from samplemind.backup.catalog import Catalog, CatalogEntry, HistoryEvent
from samplemind.backup.database_backup import DatabaseBackup
from samplemind.backup.keys import load_keyring
from samplemind.backup.manifest import BackupKind
from samplemind.backup.rotation import rotate_keys
from samplemind.backup.verdicts import actor
from samplemind.cli.backup_run import create, drill, pitr, restore, verify
from samplemind.cli.output import console, json_option, print_json, print_table
from samplemind.settings import load_settings
from samplemind.storage.opening import open_store

_AGE = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_MIB = 2**20
_HOUR_S = 3600
_TWO_DAYS_H = 48


class _Age(click.ParamType[timedelta]):
    name = "age"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        if isinstance(value, timedelta):
            return value
        match = _AGE.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is no age: 90m, 26h, 7d or 2w", param, ctx)
        return timedelta(**{_UNITS[match["unit"]]: float(match["number"])})


@click.group()
def backup() -> None:
    """Make, list, verify, restore and prune backups."""


@backup.command("list")
@click.option(
    "--max-age", type=_Age(), help="Fail when the newest good backup is older (26h, 7d, 90m)."
)
@click.option(
    "--min-level",
    type=click.IntRange(0, 4),
    help="With --max-age: only those verified at this level or above count.",
)
@click.option("--kind", type=click.Choice([kind.value for kind in BackupKind]), help="Only these.")
@json_option
def list_command(
    max_age: timedelta | None, min_level: int | None, kind: str | None, as_json: bool
) -> None:
    """List the backups in the store, the newest first.

    Exits with 1 when --max-age is given and no good backup is young enough, so that monitoring
    needs nothing else. A backup is good when its manifest can be trusted and no verification has
    had the last word against it.

    Example: samplemind backup list --max-age 26h
    """
    with _catalog() as catalog:
        now = datetime.now(UTC)
        entries = [
            entry
            for entry in catalog.entries()
            if kind is None or (entry.manifest is not None and entry.manifest.kind == kind)
        ]
        location = catalog.store.location
    newest = next((entry for entry in entries if _counts(entry, min_level, now)), None)
    late = max_age is not None and (newest is None or now - newest.started_at > max_age)
    if as_json:
        print_json(
            {
                "location": location,
                "ok": not late,
                "newest_good": newest.id if newest else None,
                "newest_good_age_s": _seconds(now - newest.started_at) if newest else None,
                "backups": [_facts(entry, now) for entry in entries],
            }
        )
    else:
        _print_entries(entries, now, location)
        if late:
            found = f"is {_age(now - newest.started_at)} old" if newest else "does not exist"
            console.print(f"The newest good backup {found}: make one with samplemind backup create")
    if late:
        sys.exit(1)


@backup.command()
@click.option("--dry-run", is_flag=True, help="Only tell what would go, and why the rest stays.")
@json_option
def prune(dry_run: bool, as_json: bool) -> None:
    """Delete backups that nothing keeps any more, and what dead uploads have left.

    The rules are the settings SAMPLEMIND_BACKUP_KEEP_…; never the last good backup of its class,
    never what another one or a recovery needs, never one on hold.

    Example: samplemind backup prune --dry-run
    """
    done = DatabaseBackup(settings=load_settings()).cleanup_old_backups(dry_run=dry_run)
    pruned = done.pruned
    going = pruned.deleted
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "deleted": going,
                "kept": pruned.plan.keep,
                "kept_back": pruned.kept_back,
                "freed_bytes": pruned.freed_bytes,
                "leftovers": [leftover.id for leftover in pruned.leftovers],
                "aborted_uploads": pruned.aborted_uploads,
                "wal_segments": done.wal_segments,
                "copies": [] if done.copies is None else done.copies.deleted,
            }
        )
        return
    gone = "would go" if dry_run else "gone"
    rows = [(one, "kept", reason.value) for one, reason in pruned.plan.keep.items()]
    rows += [(one, gone, pruned.plan.delete[one].value) for one in going]
    rows += [(one, "kept", "put on hold meanwhile") for one in pruned.kept_back]
    rows += [(left.id, gone, "a dead upload or deletion left it") for left in pruned.leftovers]
    print_table(("id", "fate", "why"), sorted(rows, reverse=True))
    console.print(
        f"{len(going)} backups and {done.wal_segments} WAL segments {gone}, "
        f"{pruned.freed_bytes / _MIB:,.1f} MiB in the store."
    )
    if done.copies is not None:
        console.print(
            f"{len(done.copies.deleted)} local copies {gone}, "
            f"{done.copies.freed_bytes / _MIB:,.1f} MiB."
        )


@backup.command()
@click.argument("backup_id")
@click.option("--reason", required=True, help="Why it must stay; shown in the list.")
@json_option
def hold(backup_id: str, reason: str, as_json: bool) -> None:
    """Keep a backup from being pruned, until it is released.

    Example: samplemind backup hold 20261122T031407Z-logical-1a2b3c4d --reason "before the move"
    """
    with _catalog() as catalog:
        catalog.hold(backup_id, reason, actor(), datetime.now(UTC))
    if as_json:
        print_json({"id": backup_id, "held": True, "reason": reason})
    else:
        console.print(f"{backup_id} is on hold.", markup=False)


@backup.command()
@click.argument("backup_id")
@json_option
def release(backup_id: str, as_json: bool) -> None:
    """Let a backup that was on hold be pruned again.

    Example: samplemind backup release 20261122T031407Z-logical-1a2b3c4d
    """
    with _catalog() as catalog:
        catalog.release(backup_id)
    if as_json:
        print_json({"id": backup_id, "held": False})
    else:
        console.print(f"{backup_id} is not on hold.", markup=False)


@backup.command()
@click.argument("backup_id")
@json_option
def history(backup_id: str, as_json: bool) -> None:
    """Show what every verification and drill of a backup found.

    Example: samplemind backup history 20261122T031407Z-logical-1a2b3c4d
    """
    with _catalog() as catalog:
        catalog.entry(backup_id)
        events = catalog.history(backup_id)
    if as_json:
        print_json({"id": backup_id, "events": [event.model_dump() for event in events]})
        return
    print_table(
        ("at", "level", "ok", "seconds", "by", "problems"),
        [
            (
                f"{event.at:%Y-%m-%d %H:%M:%S}",
                f"L{event.level}",
                "yes" if event.ok else "NO",
                f"{event.seconds:.1f}",
                event.actor,
                "; ".join(event.problems),
            )
            for event in events
        ],
    )


@backup.command("rotate-keys")
@click.option(
    "--sign-unsigned", is_flag=True, help="Trust and sign what was written without a key."
)
@click.option("--dry-run", is_flag=True, help="Only tell how many documents it would renew.")
@json_option
def rotate_keys_command(sign_unsigned: bool, dry_run: bool, as_json: bool) -> None:
    """Bring every backup under the first of the keys; no data is encrypted again.

    Put the new key first in SAMPLEMIND_BACKUP_KEYS (or the key file) and leave the old one behind
    it; take the old one out once this finds nothing to renew and no problem.

    Example: samplemind backup rotate-keys --dry-run
    """
    with _catalog() as catalog:
        done = rotate_keys(catalog, sign_unsigned=sign_unsigned, dry_run=dry_run)
    if as_json:
        print_json(
            {
                "key_id": done.key_id,
                "renewed": done.renewed,
                "current": done.current,
                "dry_run": dry_run,
                "problems": done.problems,
            }
        )
    else:
        would = "would be" if dry_run else "were"
        console.print(
            f"{done.renewed} documents {would} brought under the key {done.key_id}; "
            f"{done.current} stood under it before.",
            markup=False,
        )
        for problem in done.problems:
            console.print(problem, markup=False)
    if done.problems:
        sys.exit(1)


@contextmanager
def _catalog() -> Iterator[Catalog]:
    settings = load_settings()
    store = open_store(settings.storage, settings.home)
    try:
        yield Catalog(store, load_keyring(settings.backup))
    finally:
        store.close()


def _counts(entry: CatalogEntry, min_level: int | None, now: datetime) -> bool:
    if not entry.good or entry.started_at > now + timedelta(minutes=5):
        return False  # a clock that was wrong must not hide that no backup is made any more
    verified = entry.verified
    return min_level is None or (verified is not None and verified.level >= min_level)


def _facts(entry: CatalogEntry, now: datetime) -> dict[str, object]:
    manifest = entry.manifest
    failure = entry.failure
    return {
        "id": entry.id,
        "kind": manifest.kind if manifest else None,
        "good": entry.good,
        "problem": entry.problem or (failure and "; ".join(failure.problems)),
        "started_at": entry.started_at,
        "age_s": _seconds(now - entry.started_at),
        "size_bytes": manifest.stored_bytes if manifest else None,
        "source_bytes": manifest.source_bytes if manifest else None,
        "ratio": manifest.ratio if manifest else None,
        "encrypted": manifest.encryption is not None if manifest else None,
        "parent": entry.manifest_parent,
        "reason": manifest.reason if manifest else None,
        "actor": manifest.actor if manifest else None,
        "hold": entry.hold,
        "verified": _event(entry.verified),
        "drilled": _event(entry.drilled),
    }


def _event(event: HistoryEvent | None) -> dict[str, object] | None:
    return None if event is None else {"level": event.level, "at": event.at}


def _print_entries(entries: list[CatalogEntry], now: datetime, location: str) -> None:
    if not entries:
        console.print(f"No backup in {location}.", markup=False)
        return
    rows = []
    for entry in entries:
        manifest, verified, drilled = entry.manifest, entry.verified, entry.drilled
        rows.append(
            (
                entry.id,
                manifest.kind.value if manifest else "?",
                _age(now - entry.started_at),
                f"{manifest.stored_bytes / _MIB:,.1f} MiB" if manifest else "?",
                f"L{verified.level}, {_age(now - verified.at)} ago" if verified else "never",
                f"{_age(now - drilled.at)} ago" if drilled else "never",
                _remark(entry),
            )
        )
    print_table(("id", "kind", "age", "size", "verified", "drilled", "remark"), rows)


def _remark(entry: CatalogEntry) -> str:
    failure = entry.failure
    if entry.problem:
        return f"NOT GOOD: {entry.problem}"
    if failure is not None:
        return f"NOT GOOD (L{failure.level}): {'; '.join(failure.problems)}"
    return f"on hold: {entry.hold}" if entry.hold else ""


def _age(age: timedelta) -> str:
    seconds = age.total_seconds()
    if seconds < _HOUR_S:
        return f"{seconds / 60:.0f} min"
    hours = seconds / _HOUR_S
    return f"{hours:.0f} h" if hours < _TWO_DAYS_H else f"{hours / 24:.0f} d"


def _seconds(age: timedelta) -> float:
    return round(age.total_seconds(), 1)


for _command in (create, verify, restore, drill, pitr):
    backup.add_command(_command)
