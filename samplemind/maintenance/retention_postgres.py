"""Retention of rows in PostgreSQL, save for the audit log.

Invariant: a chunk is one short transaction that walks the primary key, so a table without an index
on the time is not read whole for each. The statement that deletes asks for age and legal holds by
itself: a run that was killed, or a hold placed meanwhile, changes nothing about what may go.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from samplemind.maintenance.pace import Pace
from samplemind.maintenance.retention import Group
from samplemind.maintenance.session import Session, fetch


@dataclass(frozen=True, slots=True)
class RowSource:
    """Rows of one table; every part is SQL of our own over the alias `t`.

    Attributes:
        at: the time that the policy counts from; NULL: not yet.
        key: columns of the primary key.
        owner: the user whose row it is; NULL for nobody's.
        where: which rows may go at all.
        ownerless: whose a row is can't be told, so that any legal hold keeps it.
    """

    table: str
    at: str
    key: tuple[str, ...] = ("id",)
    key_types: tuple[str, ...] = ("uuid",)
    owner: str = "NULL::uuid"
    where: str = "true"
    ownerless: bool = False

    async def exists(self, session: Session) -> bool:
        """Return whether the table is there: some come with other parts of the platform."""
        [row] = await fetch(
            session, "SELECT to_regclass(%(t)s) IS NOT NULL AS there", {"t": self.table}
        )
        return bool(row["there"])

    async def groups(self, session: Session, before: datetime) -> list[Group]:
        """Return what is older, by owner and day."""
        rows = await fetch(
            session,
            f"SELECT {self.owner} AS owner, min({self.at}) AS oldest, max({self.at}) AS newest, "  # noqa: S608
            f"count(*) AS rows, sum(pg_column_size(t.*))::bigint AS size_bytes "
            f"FROM {self.table} AS t WHERE {self.at} < %(before)s AND {self.where} "
            f"GROUP BY 1, date_trunc('day', {self.at})",
            {"before": before},
        )
        return [Group(**row, ownerless=self.ownerless) for row in rows]

    async def delete(self, session: Session, before: datetime, pace: Pace) -> tuple[int, bool]:
        """Delete what is older and not held; return how many rows, and whether all are gone."""
        statement = self._chunk()
        deleted, after = 0, None
        while not pace.is_over:
            parameters = {
                "before": before,
                "size": pace.size,
                "first": after is None,
                **{f"after_{name}": after and after[name] for name in self.key},
            }
            with pace.chunk():
                [row] = await fetch(session, statement, parameters)
            deleted += row["deleted"]
            if row["last"] is None:
                return deleted, True
            after = row["last"]
            await pace.rest()
        return deleted, False

    def _chunk(self) -> str:
        keys = ", ".join(self.key)
        own = ", ".join(f"t.{name}" for name in self.key)
        after = ", ".join(
            f"%(after_{name})s::{kind}" for name, kind in zip(self.key, self.key_types, strict=True)
        )
        same = " AND ".join(f"t.{name} = span.{name}" for name in self.key)
        return (
            f"WITH span AS (SELECT {keys} FROM {self.table} "  # noqa: S608
            f"WHERE %(first)s OR ({keys}) > ({after}) ORDER BY {keys} LIMIT %(size)s), "
            f"gone AS (DELETE FROM {self.table} AS t USING span WHERE {same} "
            f"AND {self.at} < %(before)s AND {self.where} AND {self._not_held()} "
            f"RETURNING {own}) "
            f"SELECT (SELECT count(*) FROM gone) AS deleted, "
            f"(SELECT row_to_json(span) FROM span ORDER BY {keys} DESC LIMIT 1) AS last".replace(
                f"ORDER BY {keys} DESC", "ORDER BY " + ", ".join(f"{k} DESC" for k in self.key)
            )
        )

    def _not_held(self) -> str:
        return nothing_held() if self.ownerless else not_held(self.owner)


def nothing_held() -> str:
    """Return the condition that no legal hold counts at all."""
    return "NOT EXISTS (SELECT FROM legal_holds AS h WHERE h.released_at IS NULL)"


def not_held(owner: str) -> str:
    """Return the condition that no legal hold counts on the owner."""
    return (
        "NOT EXISTS (SELECT FROM legal_holds AS h "
        f"WHERE h.released_at IS NULL AND h.user_id = {owner})"
    )


ROW_SOURCES: dict[str, RowSource] = {
    "user_sessions": RowSource(
        "user_sessions", "least(t.expires_at, t.revoked_at)", owner="t.user_id"
    ),
    "api_keys": RowSource("api_keys", "least(t.expires_at, t.revoked_at)", owner="t.user_id"),
    "oauth_accounts": RowSource(
        "oauth_accounts",
        "t.token_expires_at",
        owner="t.user_id",
        where="t.refresh_token_encrypted IS NULL AND EXISTS (SELECT FROM users AS u "
        "WHERE u.id = t.user_id AND u.password_hash IS NOT NULL)",
    ),
    # A replay that the broker may not have yet is still to be published: its letter stays.
    "dead_letters": RowSource(
        "dead_letters",
        "t.closed_at",
        where="t.state <> 'open' AND (t.state <> 'replayed' OR t.published_at IS NOT NULL)",
        ownerless=True,
    ),
    "open_dead_letters": RowSource(
        "dead_letters", "t.last_failed_at", where="t.state = 'open'", ownerless=True
    ),
    "periodic_runs": RowSource("periodic_runs", "t.started_at"),
    "statement_snapshots": RowSource(
        "statement_snapshots",
        "t.taken_at",
        key=("taken_at", "query_id"),
        key_types=("timestamptz", "bigint"),
    ),
}


async def orphaned_items(
    session: Session, before: datetime, after: Any, size: int
) -> Sequence[dict[str, Any]]:
    """Return places in collections that are old enough to be called orphaned, by key."""
    return await fetch(
        session,
        "SELECT i.id, i.audio_file_id, i.added_at, c.owner_id FROM audio_collection_items AS i "
        "JOIN audio_collections AS c ON c.id = i.collection_id WHERE i.added_at < %(before)s "
        "AND (%(after)s::uuid IS NULL OR i.id > %(after)s) ORDER BY i.id LIMIT %(size)s",
        {"before": before, "after": after, "size": size},
    )


async def delete_orphaned_items(session: Session, ids: Sequence[Any]) -> int:
    """Delete these places unless their owner is held; return how many."""
    cursor = await session.execute(_DELETE_ORPHANS, {"ids": list(ids)})
    return cursor.rowcount


_DELETE_ORPHANS = f"""
DELETE FROM audio_collection_items AS i USING audio_collections AS c
WHERE c.id = i.collection_id AND i.id = ANY(%(ids)s) AND {not_held("c.owner_id")}
"""  # noqa: S608
