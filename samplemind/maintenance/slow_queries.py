"""The statements that cost most, as pg_stat_statements counts them.

Invariant: statements are normalised by the server: no value that somebody searched for is shown.
The platform's own looking is left out: it is not counted, or it carries a mark.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from samplemind.maintenance.session import MARK, Session, fetch

_LONGEST_QUERY = 2000

_COUNTS = """
SELECT to_regclass('pg_stat_statements') IS NOT NULL
   AND current_setting('shared_preload_libraries') LIKE '%pg_stat_statements%' AS counts
"""
_SLOW = """
SELECT queryid AS query_id, query, calls, total_exec_time AS total_ms, mean_exec_time AS mean_ms,
       max_exec_time AS max_ms, rows, shared_blks_read AS blocks_read,
       shared_blks_hit AS blocks_hit, temp_blks_written AS blocks_spilled,
       100 * total_exec_time / nullif(sum(total_exec_time) OVER (), 0) AS share_percent
FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND queryid IS NOT NULL AND query NOT LIKE %(mark)s AND query <> '<insufficient privilege>'
ORDER BY {order} DESC LIMIT %(limit)s
"""
_SINCE = "SELECT stats_reset FROM pg_stat_statements_info"


class SlowOrder(StrEnum):
    """What makes a statement come first."""

    TOTAL = "total"  # what the server spends its time on
    MEAN = "mean"  # what somebody waits for
    IO = "io"  # what reads from the disk


_ORDERS = {
    SlowOrder.TOTAL: "total_exec_time",
    SlowOrder.MEAN: "mean_exec_time",
    SlowOrder.IO: "shared_blks_read + temp_blks_read + temp_blks_written",
}


@dataclass(frozen=True, slots=True)
class SlowStatement:
    """One normalised statement since the server began to count; blocks are of 8 KiB."""

    query_id: int
    query: str
    calls: int
    total_ms: float
    mean_ms: float
    max_ms: float
    rows: int
    blocks_read: int
    blocks_hit: int
    blocks_spilled: int
    share_percent: float


async def slow_statements(
    session: Session, *, order: SlowOrder = SlowOrder.TOTAL, limit: int = 20
) -> Sequence[SlowStatement]:
    """Return the statements that cost most; none where the server does not count them."""
    if not await counts_statements(session):
        return ()
    rows = await fetch(
        session, _SLOW.format(order=_ORDERS[order]), {"limit": limit, "mark": f"%{MARK}%"}
    )
    return [
        SlowStatement(
            **{
                **row,
                "query": row["query"][:_LONGEST_QUERY],
                "share_percent": row["share_percent"] or 0.0,
            }
        )
        for row in rows
    ]


async def counts_statements(session: Session) -> bool:
    """Return whether the extension is there and its library was loaded at the server's start."""
    [row] = await fetch(session, _COUNTS)
    return bool(row["counts"])


async def counted_since(session: Session) -> datetime | None:
    """Return when the server's counters started; asks only where `counts_statements`."""
    [row] = await fetch(session, _SINCE)
    since: datetime | None = row["stats_reset"]
    return since
