"""Which backups are kept and which may go: a pure plan, with a reason for each.

A backup is kept while it is young, among the newest good ones, or the newest good one of its day,
ISO week, month or year in UTC (grandfather-father-son). Beside the policy stand rules that no
setting turns off: the newest good backup of each cluster and class stays; so does one on hold, one
that a kept incremental stands on, the base from which recovery to the begin of the window starts,
and one that cannot be read, as nobody knows what it is.

Invariant: one that failed its verification never takes a good one's place, and whoever has kept
backups before still has one afterwards. Backups are told apart by their times, never their names.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from samplemind.backup.manifest import BackupKind
from samplemind.settings import BackupSettings

_SKEW = timedelta(minutes=5)


class Reason(StrEnum):
    """Why a backup is kept, or not."""

    HELD = "on hold"
    UNREADABLE = "its manifest cannot be trusted"
    FUTURE = "its time is in the future"
    LAST_GOOD = "the last good one of its class"
    YOUNG = "young"
    WINDOW = "recovery to the begin of the window starts from it"
    RECENT = "among the newest"
    DAY = "the newest of its day"
    WEEK = "the newest of its week"
    MONTH = "the newest of its month"
    YEAR = "the newest of its year"
    PARENT = "a kept incremental stands on it"
    EXPIRED = "nothing keeps it"
    BROKEN_CHAIN = "what it stands on is gone"


@dataclass(frozen=True)
class Kept:
    """What decides over one backup."""

    id: str
    cluster: str
    kind: BackupKind
    started_at: datetime
    good: bool = True
    held: bool = False
    readable: bool = True
    parent: str | None = None
    finished_at: datetime | None = None
    """None: as soon as it was started."""


@dataclass(frozen=True)
class Policy:
    """How long and how many; zero turns a rule off."""

    days: int = 30
    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0

    @classmethod
    def from_settings(cls, settings: BackupSettings) -> "Policy":
        """Return the policy of these settings."""
        return cls(
            days=settings.keep_days,
            last=settings.keep_last,
            daily=settings.keep_daily,
            weekly=settings.keep_weekly,
            monthly=settings.keep_monthly,
            yearly=settings.keep_yearly,
        )


@dataclass(frozen=True)
class Plan:
    """Each backup's fate; `delete` is in the order in which they may go."""

    keep: dict[str, Reason]
    delete: dict[str, Reason]


def plan_retention(backups: Iterable[Kept], policy: Policy, now: datetime) -> Plan:
    """Decide over every backup.

    Args:
        backups: all there are; of one cluster or of several, which do not touch each other.
        policy: how long and how many.
        now: the store's time, UTC-aware.

    Returns:
        The backups to keep and to delete, each with its reason; incrementals before what they
        stand on, else the oldest first.
    """
    everything = list(backups)
    keep: dict[str, Reason] = {}
    groups: dict[tuple[str, str], list[Kept]] = {}
    for backup in everything:
        groups.setdefault((backup.cluster, _family(backup.kind)), []).append(backup)
    for group in groups.values():
        _keep_of_group(group, policy, now, keep)
    _keep_parents(everything, keep)
    by_id = {backup.id: backup for backup in everything}
    going = [backup for backup in everything if backup.id not in keep]
    going.sort(key=lambda backup: (-_depth(backup, by_id), backup.started_at, backup.id))
    delete = {
        backup.id: Reason.BROKEN_CHAIN
        if backup.parent is not None and backup.parent not in by_id
        else Reason.EXPIRED
        for backup in going
    }
    return Plan(keep, delete)


def _keep_of_group(
    group: Sequence[Kept], policy: Policy, now: datetime, keep: dict[str, Reason]
) -> None:
    newest_first = sorted(group, key=lambda one: (one.started_at, one.id), reverse=True)
    good = [one for one in newest_first if one.good and one.started_at <= now + _SKEW]
    # A chain that is broken restores nothing, so it must not stand for the last good one.
    by_id = {one.id: one for one in group}
    whole = [one for one in good if _is_whole(one, by_id)]
    rules: tuple[tuple[Reason, Iterable[Kept]], ...] = (
        (Reason.HELD, (one for one in newest_first if one.held)),
        (Reason.UNREADABLE, (one for one in newest_first if not one.readable)),
        (Reason.FUTURE, (one for one in newest_first if one.started_at > now + _SKEW)),
        (Reason.LAST_GOOD, whole[:1]),
        (
            Reason.YOUNG,
            (one for one in newest_first if one.started_at > now - timedelta(days=policy.days)),
        ),
        (Reason.WINDOW, _before_window(whole, policy, now)),
        (Reason.RECENT, whole[: policy.last]),
        (Reason.DAY, _newest_of_each(whole, policy.daily, "%Y-%m-%d")),
        (Reason.WEEK, _newest_of_each(whole, policy.weekly, "%G-%V")),
        (Reason.MONTH, _newest_of_each(whole, policy.monthly, "%Y-%m")),
        (Reason.YEAR, _newest_of_each(whole, policy.yearly, "%Y")),
    )
    for reason, kept in rules:
        for one in kept:
            keep.setdefault(one.id, reason)


def _newest_of_each(newest_first: Sequence[Kept], count: int, period: str) -> list[Kept]:
    chosen: dict[str, Kept] = {}
    for one in newest_first:
        name = one.started_at.astimezone(UTC).strftime(period)
        if name not in chosen:
            if len(chosen) == count:
                break
            chosen[name] = one
    return list(chosen.values())


def _before_window(newest_first: Sequence[Kept], policy: Policy, now: datetime) -> list[Kept]:
    # Recovery to a moment replays WAL from a base backup that is older than the moment.
    start = now - timedelta(days=policy.days)
    bases = [
        one
        for one in newest_first
        if (one.finished_at or one.started_at) <= start and _family(one.kind) == BackupKind.PHYSICAL
    ]
    return bases[:1]


def _family(kind: BackupKind) -> str:
    # Incrementals and the base backups that they stand on are one class.
    return BackupKind.PHYSICAL if kind is BackupKind.INCREMENTAL else kind


def _is_whole(backup: Kept, by_id: Mapping[str, Kept]) -> bool:
    seen = {backup.id}
    while backup.parent is not None:
        parent = by_id.get(backup.parent)
        if parent is None or not parent.good or parent.id in seen:
            return False
        seen.add(parent.id)
        backup = parent
    return True


def _keep_parents(everything: Sequence[Kept], keep: dict[str, Reason]) -> None:
    by_id = {backup.id: backup for backup in everything}
    for backup_id in list(keep):
        backup = by_id[backup_id]
        seen = {backup_id}
        while backup.parent is not None and backup.parent in by_id and backup.parent not in seen:
            backup = by_id[backup.parent]
            seen.add(backup.id)
            keep.setdefault(backup.id, Reason.PARENT)


def _depth(backup: Kept, by_id: Mapping[str, Kept]) -> int:
    depth = 0
    seen = {backup.id}
    while backup.parent is not None and backup.parent in by_id and backup.parent not in seen:
        backup = by_id[backup.parent]
        seen.add(backup.id)
        depth += 1
    return depth
