"""Archiving the audit log: compressed NDJSON, read back and compared before a row goes.

One part is some thousand entries of one day in order of time, an object of its own, with a row in
`audit_archives` once it was read back. Only then may its rows go, and only those whose keys stand
in the archive that was read; the database's own guard asks for the archive as well.

Invariant: at every moment each entry is in the table or in a verified archive. A run that is killed
after an archive was verified goes on with deleting exactly that archive's rows; one that is killed
before writes the part again.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from samplemind.errors import PermanentError
from samplemind.ids import new_id
from samplemind.log import get_logger
from samplemind.maintenance.archive import Archive
from samplemind.maintenance.pace import Pace
from samplemind.maintenance.retention import Group
from samplemind.maintenance.session import Session, fetch
from samplemind.zstandard import zstd

PART_ROWS = 5_000

_MOST_BYTES = 1 << 30
_FRAME = {
    int(zstd.CompressionParameter.compression_level): 3,
    int(zstd.CompressionParameter.checksum_flag): 1,
}
# An entry is held through who acted and through the user that it is about.
_NOT_HELD = """NOT EXISTS (SELECT FROM legal_holds AS h WHERE h.released_at IS NULL
    AND (h.user_id = t.actor_id OR (t.resource_kind = 'user' AND t.resource_id = h.user_id::text)))
"""
_GROUPS = """
SELECT coalesce(t.actor_id, CASE WHEN t.resource_kind = 'user' AND t.resource_id ~
           '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$' THEN t.resource_id::uuid END) AS owner,
       min(t.occurred_at) AS oldest, max(t.occurred_at) AS newest, count(*) AS rows,
       sum(pg_column_size(t.*))::bigint AS size_bytes
FROM audit_logs AS t WHERE t.occurred_at < %(before)s
GROUP BY 1, date_trunc('day', t.occurred_at)
"""
_FIRST = f"SELECT min(t.occurred_at) AS first FROM audit_logs AS t WHERE t.occurred_at >= %(after)s AND t.occurred_at < %(before)s AND {_NOT_HELD}"  # noqa: E501, S608
_PART = f"""
SELECT t.id, t.occurred_at, row_to_json(t.*)::text AS line FROM audit_logs AS t
WHERE t.occurred_at >= %(start)s AND t.occurred_at < %(end)s AND {_NOT_HELD}
  AND (%(after_id)s::uuid IS NULL OR (t.occurred_at, t.id) > (%(start)s, %(after_id)s::uuid))
ORDER BY t.occurred_at, t.id LIMIT %(size)s
"""  # noqa: S608
# The keys come sorted, so the chunk touches few pages; the bounds leave out other partitions.
_DELETE = f"""
DELETE FROM audit_logs AS t USING unnest(%(ids)s::uuid[], %(times)s::timestamptz[]) AS k (id, at)
WHERE t.id = k.id AND t.occurred_at = k.at
  AND t.occurred_at BETWEEN %(first)s AND %(last)s AND {_NOT_HELD}
"""  # noqa: S608
_RECORD = """
INSERT INTO audit_archives
    (id, key, sha256, size_bytes, rows, first_at, last_at, verified_at)
VALUES (%(id)s, %(key)s, %(sha256)s, %(size)s, %(rows)s, %(first)s, %(last)s, now())
ON CONFLICT (key) DO UPDATE SET sha256 = excluded.sha256, size_bytes = excluded.size_bytes,
    rows = excluded.rows, first_at = excluded.first_at, last_at = excluded.last_at,
    verified_at = now(), deleted_at = NULL
"""
_UNDELETED = """
SELECT key, sha256 FROM audit_archives
WHERE deleted_at IS NULL AND verified_at IS NOT NULL ORDER BY first_at
"""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """Entries as they are archived: one line of JSON each, and their keys in order."""

    content: bytes
    keys: tuple[tuple[str, datetime], ...]

    @property
    def key(self) -> str:
        """Return the object's key: the same entries have the same."""
        first_id, first_at = self.keys[0]
        return f"audit_logs/{first_at:%Y/%m/%d}/{first_at:%H%M%S.%f}-{first_id}.ndjson.zst"


async def audit_groups(session: Session, before: datetime) -> list[Group]:
    """Return the entries before a time, by user and day."""
    return [Group(**row) for row in await fetch(session, _GROUPS, {"before": before})]


async def archive_and_delete(
    session: Session, store: Archive, before: datetime, pace: Pace
) -> tuple[int, bool]:
    """Archive and delete the entries before a time that are not held, the oldest first.

    Returns:
        How many rows went, and whether none is left.

    Raises:
        PermanentError: an archive reads back as something else than was written; its rows stay.
    """
    deleted = await _finish_earlier(session, store, pace)
    start, after_id = datetime.min.replace(tzinfo=before.tzinfo), None
    while not pace.is_over:
        async with pace.reading():
            part = await _read_part(session, start, before, after_id)
            if part is None:
                return deleted, True
            keys = await write_part(session, store, part)
        gone, whole = await _delete_keys(session, keys, pace)
        deleted += gone
        if not whole:
            return deleted, False
        await _mark_deleted(session, part.key)
        after_id, start = part.keys[-1][0], part.keys[-1][1]
    return deleted, False


async def write_part(
    session: Session, store: Archive, part: Part
) -> tuple[tuple[str, datetime], ...]:
    """Store a part, read it back, compare, and record it; return the keys that were read back.

    Raises:
        PermanentError: it reads back as something else.
    """
    packed = zstd.compress(part.content, options=_FRAME)
    store.put(part.key, packed)
    digest = hashlib.sha256(packed).hexdigest()
    keys = read_part(store, part.key, digest, expected=part.content)
    if keys != part.keys:
        message = f"archive {part.key} does not name the entries that it was made of"
        raise PermanentError(message)
    await session.execute(
        _RECORD,
        {
            "id": new_id(),
            "key": part.key,
            "sha256": digest,
            "size": len(packed),
            "rows": len(keys),
            "first": keys[0][1],
            "last": keys[-1][1],
        },
    )
    return keys


def read_part(
    store: Archive, key: str, sha256: str, *, expected: bytes | None = None
) -> tuple[tuple[str, datetime], ...]:
    """Read an archive and return the keys of its entries, in order.

    Raises:
        NotFoundError: it is not there.
        PermanentError: it is not what was written.
    """
    packed = store.get(key)
    if hashlib.sha256(packed).hexdigest() != sha256:
        message = f"archive {key} is not what was written: its SHA-256 differs"
        raise PermanentError(message)
    try:
        content = zstd.ZstdDecompressor().decompress(packed, max_length=_MOST_BYTES)
    except zstd.ZstdError as error:
        message = f"archive {key} cannot be read: {error}"
        raise PermanentError(message) from error
    if expected is not None and content != expected:
        message = f"archive {key} reads back as something else than was written"
        raise PermanentError(message)
    entries = (json.loads(line) for line in content.splitlines())
    return tuple((entry["id"], datetime.fromisoformat(entry["occurred_at"])) for entry in entries)


async def _finish_earlier(session: Session, store: Archive, pace: Pace) -> int:
    """Delete the rows of archives that an earlier run verified and did not come to the end of."""
    deleted = 0
    for row in await fetch(session, _UNDELETED):
        keys = read_part(store, row["key"], row["sha256"])
        gone, whole = await _delete_keys(session, keys, pace)
        deleted += gone
        if not whole:
            break
        await _mark_deleted(session, row["key"])
    return deleted


async def _read_part(
    session: Session, start: datetime, before: datetime, after_id: str | None
) -> Part | None:
    [found] = await fetch(session, _FIRST, {"after": start, "before": before})
    if found["first"] is None:
        return None
    if found["first"] > start:
        start, after_id = found["first"], None
    midnight = start.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    rows = await fetch(
        session,
        _PART,
        {
            "start": start,
            "end": min(midnight, before),
            "after_id": after_id,
            "size": PART_ROWS,
        },
    )
    if not rows:
        # Nothing but what this run left on purpose: go on with the next day.
        return await _read_part(session, midnight, before, None) if midnight < before else None
    content = b"".join(row["line"].encode() + b"\n" for row in rows)
    return Part(content, tuple((str(row["id"]), row["occurred_at"]) for row in rows))


async def _delete_keys(
    session: Session, keys: tuple[tuple[str, datetime], ...], pace: Pace
) -> tuple[int, bool]:
    deleted, done = 0, 0
    while done < len(keys):
        if pace.is_over:
            return deleted, False
        chunk = keys[done : done + pace.size]
        with pace.chunk():
            deleted += await _delete_chunk(session, chunk)
        done += len(chunk)
        await pace.rest()
    return deleted, True


async def _delete_chunk(session: Session, chunk: tuple[tuple[str, datetime], ...]) -> int:
    parameters: dict[str, Any] = {
        "ids": [key for key, _ in chunk],
        "times": [at for _, at in chunk],
        "first": chunk[0][1],
        "last": chunk[-1][1],
    }
    async with session.transaction():
        # An ordinary owner has no privilege to delete here; it is his for this transaction.
        [row] = await fetch(session, "SELECT has_table_privilege('audit_logs', 'DELETE') AS may")
        if not row["may"]:
            await session.execute("GRANT DELETE ON audit_logs TO CURRENT_USER")
        cursor = await session.execute(_DELETE, parameters)
        if not row["may"]:
            await session.execute("REVOKE DELETE ON audit_logs FROM CURRENT_USER")
    return cursor.rowcount


async def _mark_deleted(session: Session, key: str) -> None:
    await session.execute(
        "UPDATE audit_archives SET deleted_at = now() WHERE key = %(key)s", {"key": key}
    )
