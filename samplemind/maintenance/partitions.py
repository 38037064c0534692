"""The monthly partitions of `audit_logs`: made ahead, dropped when old and empty.

Invariant: a partition is made only for a month of which the default partition holds nothing, since
PostgreSQL would have to move rows that nobody may change; such a month stays in the default one. A
partition is dropped only when it is past retention and has no row: what it held was archived.
"""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg

from samplemind.log import get_logger
from samplemind.maintenance.session import Session, fetch, open_session
from samplemind.settings import Settings

_MONTHS_AHEAD = 3
_PARTITIONS = """
SELECT c.relname AS name FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid
WHERE inhparent = 'audit_logs'::regclass
"""
_NAME = re.compile(r"^audit_logs_(\d{4})_(\d{2})$")

_log = get_logger(__name__)


def wanted_months(today: date) -> list[date]:
    """Return the first days of the months that need a partition: the next ones."""
    months, month = [], today.replace(day=1)
    for _ in range(_MONTHS_AHEAD):
        month = next_month(month)
        months.append(month)
    return months


def next_month(month: date) -> date:
    """Return the first day of the month after."""
    return (month.replace(day=1) + timedelta(days=32)).replace(day=1)


async def maintain_partitions(settings: Settings, today: date | None = None) -> dict[str, Any]:
    """Make the partitions of the months to come; drop those that are old and empty.

    Raises:
        TransientError: the table was locked for longer than upkeep may wait.
        StoreUnavailableError: PostgreSQL did not answer.
    """
    today = today or datetime.now(UTC).date()
    made, dropped, in_default = [], [], []
    async with open_session(settings) as session:
        known = {row["name"] for row in await fetch(session, _PARTITIONS)}
        for month in wanted_months(today):
            name = f"audit_logs_{month:%Y_%m}"
            if name in known:
                continue
            if await _default_holds(session, month):
                in_default.append(f"{month:%Y-%m}")
            else:
                await _make(session, name, month)
                made.append(name)
        oldest = today - timedelta(days=settings.retention.audit_days)
        for name in sorted(known):
            held = _month_of(name)
            if held is not None and next_month(held) <= oldest and await _drop(session, name):
                dropped.append(name)
    if made or dropped:
        _log.info("audit_partitions_maintained", made=made, dropped=dropped)
    return {"made": made, "dropped": dropped, "kept_in_default": in_default}


def _month_of(name: str) -> date | None:
    found = _NAME.match(name)
    return date(int(found[1]), int(found[2]), 1) if found else None


async def _default_holds(session: Session, month: date) -> bool:
    [row] = await fetch(
        session,
        "SELECT EXISTS (SELECT FROM audit_logs_default "
        "WHERE occurred_at >= %(start)s AND occurred_at < %(end)s) AS holds",
        {"start": month, "end": next_month(month)},
    )
    return bool(row["holds"])


async def _make(session: Session, name: str, month: date) -> None:
    async with session.transaction():
        # Not CREATE … PARTITION OF, which locks the parent against writers while it checks.
        await session.execute(f"CREATE TABLE {name} (LIKE audit_logs INCLUDING ALL)")
        await session.execute(
            f"ALTER TABLE audit_logs ATTACH PARTITION {name} "
            f"FOR VALUES FROM ('{month}') TO ('{next_month(month)}')"
        )
        await session.execute(
            f"CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON {name} "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_logs_refuse_change()"
        )
        await session.execute(
            f"REVOKE UPDATE, DELETE, TRUNCATE ON {name} FROM PUBLIC, CURRENT_USER"
        )


async def _drop(session: Session, name: str) -> bool:
    try:
        async with session.transaction():
            await session.execute(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
            [row] = await fetch(session, f"SELECT EXISTS (SELECT FROM {name}) AS filled")  # noqa: S608
            if row["filled"]:
                return False
            await session.execute(f"ALTER TABLE audit_logs DETACH PARTITION {name}")
            await session.execute(f"DROP TABLE {name}")
    except psycopg.errors.LockNotAvailable:
        _log.info("audit_partition_busy", partition=name)
        return False
    return True
