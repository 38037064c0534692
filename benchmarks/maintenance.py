"""The database's upkeep: how long a report takes, how fast and unnoticed retention is, and how many
of the missing indexes are found.

The workload for the index suggestions has 30 statements over three tables; 8 indexes are known to
be missing, 22 statements are served already, read most of a table, or read a small one. The
baseline ranks by cost alone, as Dexter does: every candidate that halves a statement's cost.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import psycopg
from psycopg.rows import dict_row

from benchmarks.platform import samplemind, settings_of, temporary_home
from benchmarks.row import Row, row
from samplemind.connections.resources import Connections
from samplemind.maintenance.index_candidates import find_candidates
from samplemind.maintenance.index_proof import Table, generic_plan, open_prover
from samplemind.maintenance.index_suggestions import WorkloadQuery, suggest_indexes
from samplemind.maintenance.index_usage import read_indexes
from samplemind.maintenance.pace import LONGEST_MS
from samplemind.maintenance.report import health_report
from samplemind.maintenance.retention_run import run_retention
from samplemind.maintenance.session import MARK, Session
from samplemind.settings import Settings

T = TypeVar("T")

REPORT_GOAL_S = 5.0
FOREGROUND_GOAL = 1.3
STATEMENTS = 500

_WORDS = """
INSERT INTO search_texts (file_id, owner_id, quality, words)
SELECT gen_random_uuid(), NULL, random(), to_tsvector('simple',
       'word' || i %% 5000 || ' pack' || i %% 300 || ' kind' || i %% 7)
FROM generate_series(1, %s) AS i
"""
_AUDIT = """
INSERT INTO audit_logs (id, occurred_at, actor_kind, action, resource_kind, resource_id, details)
SELECT gen_random_uuid(), now() - interval '500 days' + i * interval '1 second', 'system',
       'file.ingest', 'file', i::text, jsonb_build_object('number', i %% 100)
FROM generate_series(1, %s) AS i
"""
_TABLES = (
    """CREATE TABLE b_files (id bigint PRIMARY KEY, owner int, pack int, tempo int, kind int,
    made timestamptz, title text, size int)""",
    """INSERT INTO b_files SELECT i, i %% 4000, i %% 900, 60 + i %% 140, i %% 2,
    now() - (i %% 500000) * interval '1 minute', md5(i::text), (i * 7919) %% 1000003
    FROM generate_series(1, %s) AS i""",
    "CREATE INDEX b_files_pack ON b_files (pack, tempo)",
    """CREATE TABLE b_plays (id bigint PRIMARY KEY, file bigint, listener int, at timestamptz,
    seconds int, device int)""",
    """INSERT INTO b_plays SELECT i, 1 + (i * 31) %% 100000, i %% 5000,
    now() - (i %% 700000) * interval '1 minute', i %% 300, i %% 3
    FROM generate_series(1, %s) AS i""",
    "CREATE INDEX b_plays_listener ON b_plays (listener)",
    "CREATE TABLE b_kinds (id int PRIMARY KEY, name text)",
    "INSERT INTO b_kinds SELECT i, 'kind' || i FROM generate_series(1, %s / 1000) AS i",
)
_MISSING = {
    ("b_files", ("owner",)),
    ("b_files", ("size",)),
    ("b_files", ("title",)),
    ("b_files", ("made",)),
    ("b_plays", ("file",)),
    ("b_plays", ("at",)),
    ("b_files", ("lower(title)",)),
    ("b_plays", ("seconds", "at")),
}
_WORKLOAD = (
    # Missing their index.
    "SELECT title FROM b_files WHERE owner = $1",
    "SELECT id FROM b_files WHERE size = $1",
    "SELECT id FROM b_files WHERE title = $1",
    "SELECT id FROM b_files ORDER BY made DESC LIMIT 20",
    "SELECT count(*) FROM b_plays WHERE file = $1",
    "SELECT id, at FROM b_plays ORDER BY at DESC LIMIT 50",
    "SELECT id FROM b_files WHERE lower(title) = $1",
    "SELECT id FROM b_plays WHERE seconds = $1 ORDER BY at LIMIT 10",
    # Served already.
    "SELECT title FROM b_files WHERE id = $1",
    "SELECT title FROM b_files WHERE pack = $1",
    "SELECT title FROM b_files WHERE pack = $1 AND tempo = $2",
    "SELECT title FROM b_files WHERE pack = $1 AND tempo > $2",
    "SELECT count(*) FROM b_plays WHERE listener = $1",
    "SELECT sum(seconds) FROM b_plays WHERE listener = $1 AND device = $2",
    "SELECT f.title FROM b_plays p JOIN b_files f ON f.id = p.file WHERE p.listener = $1",
    "SELECT seconds FROM b_plays WHERE id = $1",
    "SELECT max(id) FROM b_files",
    "SELECT id FROM b_files ORDER BY id LIMIT 10",
    "UPDATE b_files SET size = $1 WHERE id = $2",
    "DELETE FROM b_plays WHERE id = $1",
    # They want most of the table: an index would not help.
    "SELECT count(*) FROM b_files",
    "SELECT kind, count(*) FROM b_files GROUP BY kind",
    "SELECT sum(size) FROM b_files WHERE kind = $1",
    "SELECT avg(seconds) FROM b_plays WHERE device = $1",
    "SELECT device, sum(seconds) FROM b_plays GROUP BY device",
    "SELECT count(*) FROM b_files WHERE kind <> $1",
    "SELECT max(size) FROM b_files WHERE kind = $1",
    # Small tables.
    "SELECT name FROM b_kinds WHERE id = $1",
    "SELECT id FROM b_kinds WHERE name = $1",
    "SELECT count(*) FROM b_kinds WHERE name LIKE $1",
)


def rows(*, quick: bool) -> list[Row]:
    """Return the three figures with what belongs to them."""
    with temporary_home() as home:
        samplemind("up", "--detach", "--stores-only", home=home)
        return asyncio.run(_measure(settings_of(home), 50_000 if quick else 1_000_000))


async def _measure(settings: Settings, size: int) -> list[Row]:
    assert settings.postgres.url is not None
    async with await psycopg.AsyncConnection.connect(
        settings.postgres.url.get_secret_value(), autocommit=True, row_factory=dict_row
    ) as session:
        found = await _suggestions(session)
        found += await _report(settings, session, size)
        return found + await _retention(settings, session, size)


async def _report(settings: Settings, session: Session, size: int) -> list[Row]:
    await session.execute(_WORDS, (size,))
    await session.execute("VACUUM (ANALYZE) search_texts")
    await session.execute("SELECT pg_stat_statements_reset()")
    for number in range(STATEMENTS):
        sums = " + ".join(["quality"] * (number % 50 + 1))
        where = " AND ".join(["quality > 0"] * (number // 50 + 1))
        await session.execute(f"SELECT {sums} FROM search_texts WHERE {where} LIMIT 1")  # noqa: S608
    seconds = min([(await _timed(lambda: health_report(settings)))[0] for _ in range(3)])
    top = await session.execute(
        "SELECT query FROM pg_stat_statements ORDER BY total_exec_time DESC LIMIT 20"
    )
    ours = [each for each in await top.fetchall() if MARK in each["query"]]
    return [
        row(
            f"db report, {size:,} rows in the search table, {STATEMENTS} statements",
            seconds,
            "s",
            goal=f"< {REPORT_GOAL_S:.0f}",
            met=seconds < REPORT_GOAL_S,
        ),
        row(
            "its own statements in the top 20 of slow ones",
            len(ours),
            "statements",
            goal="0",
            met=not ours,
        ),
    ]


async def _retention(settings: Settings, session: Session, size: int) -> list[Row]:
    await session.execute(_AUDIT, (size,))
    await session.execute("ANALYZE audit_logs")
    keys = await session.execute("SELECT file_id FROM search_texts LIMIT 5000")
    ids = [each["file_id"] for each in await keys.fetchall()]
    alone = await _foreground(settings, ids, asyncio.sleep(10))
    work = asyncio.create_task(asyncio.to_thread(asyncio.run, _elsewhere(settings)))
    beside = await _foreground(settings, ids, work)
    seconds, longest_ms = work.result()
    factor = beside / alone
    return [
        row(f"retention of {size:,} audit rows", size / seconds, "rows/s"),
        row(
            "its longest transaction",
            longest_ms,
            "ms",
            goal=f"< {LONGEST_MS:.0f}",
            met=longest_ms < LONGEST_MS,
        ),
        row(
            "p95 of a foreground query beside it",
            beside,
            "ms",
            peer=("without it", alone),
            ratio=1 / factor,
            goal=f"<= {FOREGROUND_GOAL} x without",
            met=factor <= FOREGROUND_GOAL,
        ),
    ]


async def _elsewhere(settings: Settings) -> tuple[float, float]:
    """Run retention over connections of its own, as the worker does."""
    async with Connections(settings) as connections:
        seconds, report = await _timed(
            lambda: run_retention(
                connections,
                dry_run=False,
                only=["audit_logs"],
                now=datetime.now(UTC) + timedelta(days=400),
            )
        )
        return seconds, report.done[0].longest_transaction_ms


async def _foreground(settings: Settings, ids: list[object], until: Awaitable[object]) -> float:
    """Return the p95 in milliseconds of look-ups by key until the other thing has ended."""
    assert settings.postgres.url is not None
    task = asyncio.ensure_future(until)
    chance, taken = random.Random(1), []
    async with await psycopg.AsyncConnection.connect(
        settings.postgres.url.get_secret_value(), autocommit=True
    ) as connection:
        while not task.done():
            started = time.perf_counter()
            await connection.execute(
                "SELECT quality FROM search_texts WHERE file_id = ANY(%s)",
                (chance.sample(ids, 200),),
            )
            taken.append((time.perf_counter() - started) * 1000)
            await asyncio.sleep(0.005)
    await task
    return sorted(taken)[int(len(taken) * 0.95)]


async def _suggestions(session: Session) -> list[Row]:
    for statement in _TABLES:
        await session.execute(statement, (100_000,) if "%s" in statement else None)
    await session.execute("ANALYZE")
    workload = [WorkloadQuery(sql, 100) for sql in _WORKLOAD]
    seconds, suggested = await _timed(lambda: suggest_indexes(session, workload))
    ours = {(each.table, _plain(each.keys)) for each in suggested}
    theirs = await _cost_only(session)
    precision, recall = _scores(ours)
    their_precision, their_recall = _scores(theirs)
    peer = "every candidate that halves a cost"
    return [
        row(
            "index suggestions, 8 missing of 30 statements: precision",
            precision,
            "share",
            peer=(peer, their_precision),
            ratio=precision / max(their_precision, 0.01),
        ),
        row(
            "index suggestions: recall",
            recall,
            "share",
            peer=(peer, their_recall),
            ratio=recall / max(their_recall, 0.01),
        ),
        row("index suggestions: time", seconds, "s"),
    ]


async def _cost_only(session: Session) -> set[tuple[str, tuple[str, ...]]]:
    existing = await read_indexes(session)
    taken: set[tuple[str, tuple[str, ...]]] = set()
    for name in ("b_files", "b_plays"):
        own = [index for index in existing if index.table == name]
        async with open_prover(session, Table("public", name, 100_000, 0), own) as prover:
            for sql in _WORKLOAD:
                plan, before = await generic_plan(session, sql), await prover.plan(sql)
                if plan is None or before is None:
                    continue
                for candidate in find_candidates(plan, [name]):
                    async with prover.trial():
                        await prover.build(candidate)
                        after = await prover.plan(sql)
                    if after is not None and after.root.cost < before.root.cost / 2:
                        taken.add((name, _plain(candidate.keys)))
    return taken


def _scores(found: set[tuple[str, tuple[str, ...]]]) -> tuple[float, float]:
    right = len(found & _MISSING)
    return (right / len(found) if found else 0.0), right / len(_MISSING)


def _plain(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return the keys without their order: a B-tree is read from both ends."""
    return tuple(key.split(" ")[0] for key in keys)


async def _timed(work: Callable[[], Awaitable[T]]) -> tuple[float, T]:
    started = time.perf_counter()
    result = await work()
    return time.perf_counter() - started, result
