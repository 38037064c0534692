"""Carrying out retention: each policy planned, then, unless it is a rehearsal, done.

Invariant: one run at a time (a lock of PostgreSQL's session), and never beside a backup, so that
none misses what went meanwhile. A policy that fails does not keep the others from their work. What
went is told in `audit_logs`. At the end of the window the rest stays for the next run.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime
from uuid import UUID

from samplemind.connections.resources import Connections
from samplemind.errors import InvalidInputError, SampleMindError, TransientError
from samplemind.log import get_logger
from samplemind.maintenance.archive import Archive, open_archive
from samplemind.maintenance.audit_archive import archive_and_delete, audit_groups
from samplemind.maintenance.locks import no_backup_runs, retention_lock
from samplemind.maintenance.pace import Pace
from samplemind.maintenance.retention import (
    Group,
    Holds,
    Policy,
    PolicyDone,
    PolicyPlan,
    RetentionReport,
    cutoff,
    plan_policy,
    policies,
)
from samplemind.maintenance.retention_documents import (
    DOCUMENT_POLICIES,
    DocumentSource,
    existing_files,
)
from samplemind.maintenance.retention_files import delete_files, file_groups
from samplemind.maintenance.retention_postgres import (
    ROW_SOURCES,
    delete_orphaned_items,
    orphaned_items,
)
from samplemind.maintenance.retention_redis import REDIS_POLICIES, redis_delete, redis_groups
from samplemind.maintenance.session import Row, Session, open_session
from samplemind.models.audit_log import AuditOutcome
from samplemind.repositories.audit import AuditLogRepository
from samplemind.repositories.legal_holds import LegalHoldRepository

_log = get_logger(__name__)


async def run_retention(
    connections: Connections,
    *,
    dry_run: bool,
    only: Iterable[str] = (),
    now: datetime | None = None,
    store: Archive | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> RetentionReport:
    """Plan every policy and, unless it is a rehearsal, carry it out.

    Args:
        connections: to the stores.
        dry_run: plan only; nothing is changed.
        only: names of policies; empty: all.
        now: the time by which things are old.
        store: for archives; None: that of the settings.
        progress: called after each policy with its name and how much went.

    Raises:
        InvalidInputError: there is no policy of a name in `only`.
        StoreUnavailableError: PostgreSQL did not answer.
    """
    settings = connections.settings
    known = policies(settings.retention)
    wanted = set(only) or set(known)
    if wanted - known.keys():
        message = (
            f"there is no policy {', '.join(sorted(wanted - known.keys()))}: {', '.join(known)}"
        )
        raise InvalidInputError(message)
    report = RetentionReport(dry_run)
    async with (
        open_session(settings) as session,
        retention_lock(session) as alone,
        no_backup_runs(session) as undisturbed,
    ):
        if not dry_run and not (alone and undisturbed):
            report.skipped = "another run goes on" if not alone else "a backup is running"
            return report
        # A commit need not wait for the disk: what a crash undoes, the next run does again.
        await session.execute("SET synchronous_commit = off")
        run = _Run(connections, session, now or datetime.now(UTC), store or open_archive(settings))
        for policy in (known[name] for name in known if name in wanted):
            plan = await run.plan(policy)
            report.plans.append(plan)
            if not dry_run and plan.rows:
                done = await run.carry_out(policy, plan)
                report.done.append(done)
                if progress is not None:
                    progress(policy.name, done.deleted)
    failed = [done for done in report.done if done.error]
    if failed:
        message = "; ".join(f"retention of {done.policy}: {done.error}" for done in failed)
        raise TransientError(message)
    return report


class _Run:
    """One run over all stores."""

    def __init__(
        self, connections: Connections, session: Session, now: datetime, store: Archive
    ) -> None:
        self._connections = connections
        self._session = session
        self._now = now
        self._store = store
        self._ends = time.monotonic() + connections.settings.maintenance.window_minutes * 60

    async def holds(self) -> Holds:
        """Return the holds that count at this moment."""
        async with self._connections.postgres.session() as session:
            active = await LegalHoldRepository(session).active()
        return Holds(
            frozenset(hold.user_id for hold in active if hold.user_id is not None),
            frozenset(hold.tag for hold in active if hold.tag is not None),
        )

    async def plan(self, policy: Policy) -> PolicyPlan:
        """Return what the policy would take now."""
        groups = await self._groups(policy, cutoff(policy, self._now))
        return plan_policy(policy, groups, await self.holds(), self._now)

    async def carry_out(self, policy: Policy, plan: PolicyPlan) -> PolicyDone:
        """Take it, and tell the audit log."""
        duty = self._connections.settings.retention.duty
        pace = Pace(duty=duty, seconds=self._ends - time.monotonic())
        started = time.perf_counter()
        error = None
        try:
            deleted, finished = await self._delete(policy, plan.cutoff, pace)
        except SampleMindError as failure:
            # The other policies go on; the run as a whole fails at its end and says why.
            deleted, finished, error = 0, False, str(failure)
            _log.exception("retention_policy_failed", policy=policy.name)
        done = PolicyDone(
            policy=policy.name,
            deleted=deleted,
            seconds=time.perf_counter() - started,
            longest_transaction_ms=pace.longest_ms,
            finished=finished,
            error=error,
        )
        await self._tell(plan, done)
        return done

    async def _groups(self, policy: Policy, before: datetime) -> list[Group]:
        name = policy.name
        if name in ROW_SOURCES:
            return await ROW_SOURCES[name].groups(self._session, before)
        if name == "audit_logs":
            return await audit_groups(self._session, before)
        if name in DOCUMENT_POLICIES:
            return await DocumentSource(await self._connections.documents(), name).groups(before)
        if name == "orphaned_items":
            return [
                Group(row["added_at"], row["added_at"], 1, 64, owner=row["owner_id"])
                for chunk in [rows async for rows in self._orphans(before, 1000)]
                for row in chunk
            ]
        if name in REDIS_POLICIES:
            return await redis_groups(self._connections.broker, before)
        return file_groups(self._connections.settings, before)

    async def _delete(self, policy: Policy, before: datetime, pace: Pace) -> tuple[int, bool]:
        name = policy.name
        if name in ROW_SOURCES:
            return await ROW_SOURCES[name].delete(self._session, before, pace)
        if name == "audit_logs":
            return await archive_and_delete(self._session, self._store, before, pace)
        if name in DOCUMENT_POLICIES:
            source = DocumentSource(await self._connections.documents(), name)
            return await source.delete(before, self.holds, pace)
        if name == "orphaned_items":
            return await self._delete_orphans(before, pace)
        if name in REDIS_POLICIES:
            if await self.holds():
                return 0, True
            return await redis_delete(self._connections.broker, before, pace)
        return delete_files(self._connections.settings, before, pace)

    async def _orphans(self, before: datetime, size: int) -> AsyncIterator[list[Row]]:
        database = await self._connections.documents()
        after: UUID | None = None
        while rows := await orphaned_items(self._session, before, after, size):
            there = await existing_files(database, [row["audio_file_id"] for row in rows])
            yield [row for row in rows if row["audio_file_id"] not in there]
            after = rows[-1]["id"]

    async def _delete_orphans(self, before: datetime, pace: Pace) -> tuple[int, bool]:
        deleted = 0
        async for rows in self._orphans(before, 200):
            if pace.is_over:
                return deleted, False
            with pace.chunk():
                deleted += await delete_orphaned_items(self._session, [row["id"] for row in rows])
            await pace.rest()
        return deleted, True

    async def _tell(self, plan: PolicyPlan, done: PolicyDone) -> None:
        async with self._connections.postgres.session() as session:
            await AuditLogRepository(session).record(
                "retention.delete",
                resource_kind=plan.policy,
                outcome=AuditOutcome.FAILED if done.error else AuditOutcome.SUCCESS,
                details={
                    "cutoff": plan.cutoff.isoformat(),
                    "planned": plan.rows,
                    "deleted": done.deleted,
                    "held": plan.held_rows,
                    "finished": done.finished,
                    **({"error": done.error} if done.error else {}),
                },
            )
