"""How long things are kept, and what follows from that: policies as data, a pure plan.

Invariant: the plan takes nothing that is younger than its policy allows, and nothing under a legal
hold, whatever else is true. Whoever carries it out asks for the holds again, in the same statement
that deletes, so that one placed meanwhile wins too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from samplemind.settings import RetentionSettings


@dataclass(frozen=True, slots=True)
class Policy:
    """One kind of thing, how long it is kept, and why it may go."""

    name: str
    keep: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class Holds:
    """Legal holds that count."""

    users: frozenset[UUID] = frozenset()
    tags: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.users or self.tags)


@dataclass(frozen=True, slots=True)
class Group:
    """Things of one owner and one day that a policy may take.

    Attributes:
        oldest: when the first of them ended, expired or was written.
        owner: whose they are; None: nobody's.
        tags: of the files that they belong to.
        ownerless: whose they are can't be told any more, so that no hold may be ruled out.
    """

    oldest: datetime
    newest: datetime
    rows: int
    size_bytes: int
    owner: UUID | None = None
    tags: frozenset[str] = frozenset()
    ownerless: bool = False


@dataclass(frozen=True, slots=True)
class PolicyPlan:
    """What a policy would take: counts, bytes, the oldest and the newest; and what it leaves."""

    policy: str
    reason: str
    cutoff: datetime
    rows: int = 0
    size_bytes: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None
    held_rows: int = 0
    note: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyDone:
    """What a policy took."""

    policy: str
    deleted: int
    seconds: float
    longest_transaction_ms: float
    finished: bool
    """Whether all of the plan is done; the rest goes the next time."""
    error: str | None = None


@dataclass(slots=True)
class RetentionReport:
    """A run: what was planned, and what was done unless it was a rehearsal."""

    dry_run: bool
    plans: list[PolicyPlan] = field(default_factory=list)
    done: list[PolicyDone] = field(default_factory=list)
    skipped: str | None = None


def policies(settings: RetentionSettings) -> dict[str, Policy]:
    """Return every policy by name, in the order in which they are applied."""
    days = {
        "user_sessions": (settings.sessions_days, "sessions that expired or were revoked"),
        "api_keys": (settings.api_keys_days, "API keys that expired or were revoked"),
        "oauth_accounts": (
            settings.oauth_days,
            "OAuth tokens that expired and cannot be renewed, of users with another way in",
        ),
        "audit_logs": (settings.audit_days, "audit entries, after they were archived"),
        "batch_items": (settings.batches_days, "items of batches that ended"),
        "batch_jobs": (settings.batches_days, "batches that ended"),
        "analysis_results": (settings.results_days, "analyses that a newer one superseded"),
        "orphaned_results": (settings.results_days, "analyses whose file is gone"),
        "orphaned_items": (settings.results_days, "places in collections whose file is gone"),
        "dead_letters": (
            settings.dead_letters_days,
            "dead letters that were sent again or discarded",
        ),
        "open_dead_letters": (
            settings.open_letters_days,
            "dead letters that nobody attended to",
        ),
        "celery_results": (settings.records_days, "results of jobs that nobody fetched"),
        "periodic_runs": (settings.records_days, "records of periodic jobs"),
        "statement_snapshots": (settings.records_days, "snapshots of slow statements"),
    }
    found = {
        name: Policy(name, timedelta(days=count), reason) for name, (count, reason) in days.items()
    }
    keep = timedelta(hours=settings.temporary_hours)
    found["temporary_files"] = Policy("temporary_files", keep, "drafts that nobody finished")
    return found


def cutoff(policy: Policy, now: datetime) -> datetime:
    """Return the time before which things go: the start of a day, so that a day goes whole.

    What is kept for less than two days has its cutoff to the second.
    """
    edge = now.astimezone(UTC) - policy.keep
    if policy.keep < timedelta(days=2):
        return edge
    return edge.replace(hour=0, minute=0, second=0, microsecond=0)


def is_held(group: Group, holds: Holds) -> bool:
    """Return whether a hold forbids to take the group."""
    if group.ownerless:
        return bool(holds)
    return group.owner in holds.users or bool(group.tags & holds.tags)


def plan_policy(policy: Policy, groups: Iterable[Group], holds: Holds, now: datetime) -> PolicyPlan:
    """Return what the policy would take of these groups."""
    edge = cutoff(policy, now)
    old = [group for group in groups if group.newest < edge]
    going = [group for group in old if not is_held(group, holds)]
    return PolicyPlan(
        policy=policy.name,
        reason=policy.reason,
        cutoff=edge,
        rows=sum(group.rows for group in going),
        size_bytes=sum(group.size_bytes for group in going),
        oldest=min((group.oldest for group in going), default=None),
        newest=max((group.newest for group in going), default=None),
        held_rows=_rows(old) - _rows(going),
    )


def _rows(groups: Sequence[Group]) -> int:
    return sum(group.rows for group in groups)
