"""Snapshots of pg_stat_statements, and the trends between them.

Invariant: a snapshot is one transaction; a difference is taken only between two snapshots that the
same counters made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.resources import Connections
from samplemind.maintenance.session import open_session
from samplemind.maintenance.slow_queries import (
    SlowStatement,
    counted_since,
    counts_statements,
    slow_statements,
)
from samplemind.models.statement_snapshot import StatementSnapshot

_KEPT_STATEMENTS = 100


@dataclass(frozen=True, slots=True)
class Trend:
    """One statement between two snapshots."""

    query_id: int
    query: str
    calls: int
    mean_ms: float
    earlier_mean_ms: float | None
    """Before the first of the two; None: it had no calls by then."""

    @property
    def factor(self) -> float | None:
        """How many times slower a call became."""
        return self.mean_ms / self.earlier_mean_ms if self.earlier_mean_ms else None


@dataclass(frozen=True, slots=True)
class Trends:
    """What happened between two snapshots of the same counters; of fewer, there is no trend."""

    first: datetime | None = None
    last: datetime | None = None
    statements: Sequence[Trend] = ()


async def snapshot_statements(connections: Connections) -> int:
    """Keep the figures of the statements that cost most; return how many.

    Raises:
        StoreUnavailableError: PostgreSQL did not answer.
    """
    async with open_session(connections.settings) as session:
        if not await counts_statements(session):
            return 0
        since = await counted_since(session)
        found = await slow_statements(session, limit=_KEPT_STATEMENTS)
    taken_at = datetime.now(UTC)
    rows = [
        {
            "taken_at": taken_at,
            "query_id": each.query_id,
            "counted_since": since,
            "query": each.query,
            "calls": each.calls,
            "total_ms": each.total_ms,
            "rows": each.rows,
            "blocks_read": each.blocks_read,
            "blocks_hit": each.blocks_hit,
            "blocks_spilled": each.blocks_spilled,
        }
        for each in _one_of_each(found)
    ]
    if rows:
        async with connections.postgres.session() as writing:
            await writing.execute(insert(StatementSnapshot), rows)
    return len(rows)


async def trends(session: AsyncSession, *, over: timedelta, limit: int = 20) -> Trends:
    """Return how the statements of the last snapshot did since one that is about `over` old.

    Where the server's counters started anew meanwhile, it is since the first snapshot after that.
    """
    newest = await session.scalar(
        select(StatementSnapshot).order_by(StatementSnapshot.taken_at.desc()).limit(1)
    )
    if newest is None:
        return Trends()
    last = newest.taken_at
    first = await session.scalar(
        select(StatementSnapshot.taken_at)
        .where(
            StatementSnapshot.taken_at >= last - over,
            StatementSnapshot.counted_since.is_not_distinct_from(newest.counted_since),
        )
        .order_by(StatementSnapshot.taken_at)
        .limit(1)
    )
    if first == last:
        return Trends(last=last)
    now = (
        await session.scalars(select(StatementSnapshot).where(StatementSnapshot.taken_at == last))
    ).all()
    before = (
        await session.scalars(select(StatementSnapshot).where(StatementSnapshot.taken_at == first))
    ).all()
    return Trends(first, last, compare_snapshots(before, now)[:limit])


def compare_snapshots(
    before: Sequence[StatementSnapshot], after: Sequence[StatementSnapshot]
) -> list[Trend]:
    """Return the difference of two snapshots, what took most time between them first."""
    earlier = {each.query_id: each for each in before}
    found = []
    for late in after:
        early = earlier.get(late.query_id)
        same = early is not None and early.counted_since == late.counted_since
        if early is None or not same or late.calls <= early.calls:
            continue
        calls, total_ms = late.calls - early.calls, late.total_ms - early.total_ms
        found.append(
            (
                total_ms,
                Trend(
                    late.query_id,
                    late.query,
                    calls,
                    total_ms / calls,
                    early.total_ms / early.calls if early.calls else None,
                ),
            )
        )
    return [trend for _, trend in sorted(found, key=lambda pair: -pair[0])]


def _one_of_each(found: Sequence[SlowStatement]) -> list[SlowStatement]:
    # The server counts one statement apart for each user; of one, the costliest counts here.
    first: dict[int, SlowStatement] = {}
    for each in found:
        first.setdefault(each.query_id, each)
    return list(first.values())
