"""What PostgreSQL says of its sessions and its size, for metrics.

Invariant: one short statement that reads the server's own views; it locks and changes nothing.
"""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_SESSIONS = text("""
SELECT coalesce(state, 'unknown') AS state, count(*) AS sessions,
       coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8 AS oldest_s
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend'
  AND pid <> pg_backend_pid()
GROUP BY 1
""")
_SERVER = text("""
SELECT current_setting('max_connections')::int, pg_database_size(current_database())
""")


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """The database at one moment.

    Attributes:
        sessions: by state (`active`, `idle`, `idle in transaction`, …).
        limit: sessions that the server admits, for all databases.
        longest_transaction_s: age of the oldest one.
    """

    sessions: dict[str, int]
    limit: int
    size_bytes: int
    longest_transaction_s: float


async def server_figures(session: AsyncSession) -> ServerFigures:
    """Return the figures of the session's database.

    Raises:
        StoreUnavailableError: PostgreSQL did not answer.
    """
    rows = (await session.execute(_SESSIONS)).all()
    limit, size_bytes = (await session.execute(_SERVER)).one()
    return ServerFigures(
        sessions={row.state: row.sessions for row in rows},
        limit=limit,
        size_bytes=size_bytes,
        longest_transaction_s=max((row.oldest_s for row in rows), default=0.0),
    )
