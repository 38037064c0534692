"""What the server does right now: connections, who waits for whom, what takes long, upkeep.

Invariant: it only looks, and shows statements as the server normalised them: no value that somebody
searched for is told. What the server does not know the normal form of is left out.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from samplemind.maintenance.session import Session, fetch, open_session
from samplemind.maintenance.slow_queries import counts_statements
from samplemind.settings import Settings

_LONG = timedelta(minutes=1)
_MOST = 50
_TIMEOUT_MS = 5000
_LONGEST_QUERY = 300

_CONNECTIONS = """
SELECT coalesce(state, 'unknown') AS state, count(*) AS count FROM pg_stat_activity
WHERE backend_type = 'client backend' GROUP BY 1 ORDER BY 2 DESC, 1
"""
_LIMITS = """
SELECT current_setting('max_connections')::int AS most,
       current_setting('superuser_reserved_connections')::int AS reserved,
       pg_database_size(current_database()) AS size_bytes,
       (SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()) AS deadlocks,
       (SELECT (blks_hit / nullif(blks_hit + blks_read, 0)::numeric)::float8
        FROM pg_stat_database WHERE datname = current_database()) AS from_memory
"""
_SESSIONS = """
SELECT a.pid, coalesce(nullif(a.application_name, ''), a.backend_type) AS application,
       a.state, a.query_id, a.wait_event_type = 'Lock' AS waits,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS transaction_s,
       extract(epoch FROM clock_timestamp() - l.waitstart)::float8 AS waiting_s,
       l.relation::regclass::text AS relation, l.mode,
       CASE WHEN a.wait_event_type = 'Lock' THEN pg_blocking_pids(a.pid) ELSE '{}' END AS blockers
FROM pg_stat_activity AS a
LEFT JOIN LATERAL (
    SELECT * FROM pg_locks WHERE pg_locks.pid = a.pid AND NOT granted LIMIT 1
) AS l ON true
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
  AND a.backend_type = 'client backend' AND a.xact_start IS NOT NULL
ORDER BY a.xact_start LIMIT %(most)s
"""
_QUERIES = """
SELECT queryid AS query_id, left(min(query), %(length)s) AS query FROM pg_stat_statements
WHERE queryid = ANY(%(ids)s) GROUP BY queryid
"""
_UPKEEP = """
SELECT pid, relid::regclass::text AS table, 'VACUUM' AS command, phase,
       heap_blks_scanned AS done, heap_blks_total AS total FROM pg_stat_progress_vacuum
WHERE datname = current_database()
UNION ALL
SELECT pid, relid::regclass::text, 'ANALYZE', phase, sample_blks_scanned, sample_blks_total
FROM pg_stat_progress_analyze WHERE datname = current_database()
UNION ALL
SELECT pid, relid::regclass::text, command, phase, blocks_done, blocks_total
FROM pg_stat_progress_create_index WHERE datname = current_database()
"""


@dataclass(frozen=True, slots=True)
class ActiveSession:
    """One session within a transaction.

    Attributes:
        query: normalised; none where the server does not know it.
        waiting_s: seconds that it has waited for a lock; none: it waits for none.
        relation: what the lock is on, where it is on a table.
        blockers: the processes that hold what it waits for.
    """

    pid: int
    application: str
    state: str
    transaction_s: float
    query: str | None
    waits: bool
    waiting_s: float | None
    relation: str | None
    mode: str | None
    blockers: tuple[int, ...]

    @property
    def is_long(self) -> bool:
        """Whether its transaction is so old that VACUUM cannot free what came after."""
        return self.transaction_s >= _LONG.total_seconds()


@dataclass(frozen=True, slots=True)
class RunningUpkeep:
    """A VACUUM, ANALYZE or building of an index that runs; blocks are of 8 KiB."""

    pid: int
    table: str
    command: str
    phase: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Activity:
    """The server at one moment."""

    connections: dict[str, int]
    most_connections: int
    size_bytes: int
    deadlocks: int
    from_memory: float | None
    sessions: tuple[ActiveSession, ...]
    upkeep: tuple[RunningUpkeep, ...]

    @property
    def connected(self) -> int:
        """How many clients are connected."""
        return sum(self.connections.values())

    @property
    def waiting(self) -> tuple[ActiveSession, ...]:
        """The sessions that wait for a lock."""
        return tuple(each for each in self.sessions if each.waits)

    @property
    def long(self) -> tuple[ActiveSession, ...]:
        """The sessions whose transaction is old."""
        return tuple(each for each in self.sessions if each.is_long)


async def activity(settings: Settings) -> Activity:
    """Look at the server.

    Raises:
        StoreUnavailableError: PostgreSQL did not answer.
    """
    async with open_session(settings, statement_timeout_ms=_TIMEOUT_MS) as session:
        [limits] = await fetch(session, _LIMITS)
        counted = await fetch(session, _CONNECTIONS)
        sessions = await fetch(session, _SESSIONS, {"most": _MOST})
        queries = await _queries(session, [row["query_id"] for row in sessions])
        return Activity(
            connections={row["state"]: row["count"] for row in counted},
            most_connections=limits["most"] - limits["reserved"],
            size_bytes=limits["size_bytes"],
            deadlocks=limits["deadlocks"],
            from_memory=limits["from_memory"],
            sessions=tuple(_session(row, queries) for row in sessions),
            upkeep=tuple(RunningUpkeep(**row) for row in await fetch(session, _UPKEEP)),
        )


def _session(row: dict[str, Any], queries: dict[int, str]) -> ActiveSession:
    return ActiveSession(
        pid=row["pid"],
        application=row["application"],
        state=row["state"] or "unknown",
        transaction_s=row["transaction_s"] or 0.0,
        query=queries.get(row["query_id"]),
        waits=bool(row["waits"]),
        waiting_s=row["waiting_s"],
        relation=row["relation"],
        mode=row["mode"],
        blockers=tuple(row["blockers"]),
    )


async def _queries(session: Session, ids: list[int | None]) -> dict[int, str]:
    known = [each for each in ids if each is not None]
    if not known or not await counts_statements(session):
        return {}
    rows = await fetch(session, _QUERIES, {"ids": known, "length": _LONGEST_QUERY})
    return {row["query_id"]: row["query"] for row in rows}
