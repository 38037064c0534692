"""Keeping the index fast, and telling how it is.

Invariant: everything here may run at any time beside searches and drains; it reads and tidies,
and never changes what is found.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.resources import Connections
from samplemind.maintenance.vacuum import UpkeepReport, vacuum_tables
from samplemind.search.configuration import index_configuration
from samplemind.search.dirty import IndexLag, index_lag
from samplemind.search.generations import TABLES
from samplemind.search.rebuild import discard_abandoned
from samplemind.search.recall import calibrate, chosen_ef_search
from samplemind.search.statistics import Progress, Vocabulary, refresh_vocabulary
from samplemind.search.usage import forget_unused

SEARCH_TABLES = (*TABLES, "search_lexemes", "search_words", "search_prefixes", "search_usage")
"""Every table that a search may read."""

_USAGE_KEPT = timedelta(days=30)
_SLOWEST = 10

_GIN_INDEXES = text("""
SELECT c.oid::regclass::text FROM pg_index
JOIN pg_class AS c ON c.oid = indexrelid JOIN pg_am ON pg_am.oid = c.relam
WHERE amname = 'gin' AND indisvalid
  AND indrelid = ANY(CAST(CAST(:tables AS text[]) AS regclass[])) ORDER BY 1
""")
_PENDING = text("""
SELECT pending_pages, pending_tuples FROM pgstatginindex(CAST(CAST(:index AS text) AS regclass))
""")
_TABLE_STATS = text("""
SELECT s.relname AS name, n_live_tup AS rows, n_dead_tup AS dead_rows,
       pg_table_size(s.relid) AS table_bytes, pg_indexes_size(s.relid) AS index_bytes,
       greatest(last_vacuum, last_autovacuum) AS vacuumed_at,
       greatest(last_analyze, last_autoanalyze) AS analyzed_at,
       round((heap_blks_hit + idx_blks_hit)
             / nullif(heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read, 0)::numeric,
             4)::float8 AS cache_hits
FROM pg_stat_user_tables AS s JOIN pg_statio_user_tables AS io USING (relid)
WHERE s.relid = ANY(CAST(CAST(:tables AS text[]) AS regclass[])) ORDER BY 1
""")
_FRESHNESS = text("""
SELECT (SELECT count(*) FROM search_documents) AS files,
       (SELECT max(indexed_at) FROM search_documents) AS indexed_at,
       (SELECT count(*) FROM search_vectors_fresh) AS fresh_vectors,
       (SELECT count(DISTINCT embedding_version) FROM search_documents) AS embedding_versions,
       (SELECT phase FROM search_rebuilds
        WHERE finished_at IS NULL AND failed_at IS NULL) AS rebuild_phase,
       (SELECT files FROM search_rebuilds
        WHERE finished_at IS NULL AND failed_at IS NULL) AS rebuild_files,
       (SELECT max(finished_at) FROM search_rebuilds) AS rebuilt_at
""")
_RECALL = text("""
SELECT ef_search, recall, milliseconds, measured_at, queries, vectors
FROM search_recall ORDER BY ef_search
""")
# The view is there in every database, and works only where the library was loaded at the start.
_COUNTS_QUERIES = text("""
SELECT to_regclass('pg_stat_statements') IS NOT NULL
   AND current_setting('shared_preload_libraries') LIKE '%pg_stat_statements%'
""")
_OF_SEARCHES = """
dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND query ~* '^\\s*(with|select)\\M.*\\msearch_(texts|documents|vectors|words|lexemes)'
  -- Those that write or lock, and upkeep's own, are no searches.
  AND query !~* '\\m(insert|update|delete|ctid|hashtextextended|search_staging)\\M'
"""
_TOTALS = text(f"""
SELECT coalesce(sum(calls), 0)::bigint AS calls,
       coalesce(sum(total_exec_time) / 1000, 0)::float8 AS seconds
FROM pg_stat_statements
WHERE {_OF_SEARCHES} AND query !~* '^\\s*select\\s+count\\(\\*\\)'
""")  # noqa: S608 - a constant's value
_SLOW_QUERIES = text(f"""
SELECT left(regexp_replace(query, '\\s+', ' ', 'g'), 200) AS query, calls,
       round(mean_exec_time::numeric, 2)::float8 AS mean_ms,
       round(max_exec_time::numeric, 2)::float8 AS max_ms
FROM pg_stat_statements
WHERE {_OF_SEARCHES}
ORDER BY mean_exec_time DESC LIMIT :limit
""")  # noqa: S608 - a constant's value


@dataclass(frozen=True, slots=True)
class TableStats:
    """One table: rows, those that VACUUM would free, sizes, upkeep, share of reads from memory."""

    name: str
    rows: int
    dead_rows: int
    table_bytes: int
    index_bytes: int
    vacuumed_at: datetime | None
    analyzed_at: datetime | None
    cache_hits: float | None


@dataclass(frozen=True, slots=True)
class PendingList:
    """What a GIN index has not sorted in yet; every search of it reads that whole."""

    index: str
    pages: int
    entries: int


@dataclass(frozen=True, slots=True)
class MeasuredRecall:
    """What one `ef_search` found of the true nearest when it was measured last.

    Attributes:
        queries: how many samples stand behind the figure.
        vectors: about how many the index had then.
    """

    ef_search: int
    recall: float
    milliseconds: float
    measured_at: datetime
    queries: int
    vectors: int


@dataclass(frozen=True, slots=True)
class SlowQuery:
    """A kind of search and how long it took since the server's statistics began."""

    query: str
    calls: int
    mean_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Freshness:
    """How far the index is: files, the last write, vectors that wait to be folded, rebuilds.

    Attributes:
        text_configuration: what its words are in; none where it has no rows.
    """

    files: int
    indexed_at: datetime | None
    fresh_vectors: int
    embedding_versions: int
    rebuild_phase: str | None
    rebuild_files: int | None
    rebuilt_at: datetime | None
    text_configuration: str | None


@dataclass(frozen=True, slots=True)
class SearchStats:
    """The state of the index; `pending` and `slowest` are empty where the server may not tell."""

    freshness: Freshness
    lag: IndexLag
    tables: tuple[TableStats, ...]
    pending: tuple[PendingList, ...]
    recall: tuple[MeasuredRecall, ...]
    slowest: tuple[SlowQuery, ...]


@dataclass(frozen=True, slots=True)
class SearchTotals:
    """Statements of searches since PostgreSQL's statistics began, and the seconds they took."""

    calls: int
    seconds: float


async def search_totals(session: AsyncSession) -> SearchTotals | None:
    """Return how many searches there were; none where the server does not count."""
    if not await session.scalar(_COUNTS_QUERIES):
        return None
    calls, seconds = (await session.execute(_TOTALS)).one()
    return SearchTotals(calls, seconds)


@dataclass(frozen=True, slots=True)
class Optimized:
    """What a round of upkeep did.

    Attributes:
        discarded_rebuild: whether there was what a dead rebuild had left.
        upkeep: of the tables.
        ef_search: what searches by sound use from now on, by the recall that was measured.
    """

    discarded_rebuild: bool
    upkeep: UpkeepReport
    ef_search: int

    def figures(self) -> dict[str, Any]:
        """Return what is recorded of the run."""
        own = {"discarded_rebuild": self.discarded_rebuild, "ef_search": self.ef_search}
        return {**self.upkeep.figures(), **own}


class SearchOptimizer:
    """Upkeep of the index's tables."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def update_statistics(
        self, progress: Progress = lambda _done, _total: None
    ) -> Vocabulary:
        """Count the vocabulary anew and gather the planner's statistics of every search table.

        Args:
            progress: called after each step of the counting, which takes nearly all of the time.

        Raises:
            StoreUnavailableError: PostgreSQL did not answer.
        """
        vocabulary = await self._connections.postgres.run(
            partial(refresh_vocabulary, progress=progress), idempotent=True
        )

        async def analyze(session: AsyncSession) -> None:
            await session.execute(text("SET LOCAL statement_timeout = 0"))
            for table in SEARCH_TABLES:
                await session.execute(text(f"ANALYZE {table}"))

        await self._connections.postgres.run(analyze, idempotent=True)
        return vocabulary

    async def vacuum_tables(self) -> UpkeepReport:
        """Free dead rows and sort the pending lists in, which VACUUM does as well.

        Counters of files that left the index a month ago go before. It is upkeep like any other:
        a table that another upkeep works on, or any while a backup runs, is skipped and told.

        Raises:
            StoreUnavailableError: PostgreSQL did not answer.
        """
        async with self._connections.postgres.session() as session:
            await forget_unused(session, older_than=_USAGE_KEPT)
        return await vacuum_tables(self._connections.settings, SEARCH_TABLES)

    async def optimize(self, progress: Progress = lambda _done, _total: None) -> Optimized:
        """Clear what a dead rebuild has left, tidy the tables, and measure recall anew.

        Args:
            progress: told how far the measurement is, which takes most of the time.

        Raises:
            StoreUnavailableError: PostgreSQL did not answer; running it again does no harm.
        """
        discarded = await discard_abandoned(self._connections)
        upkeep = await self.vacuum_tables()
        target = self._connections.settings.search.recall_target

        async def measure(session: AsyncSession) -> int:
            await calibrate(session, progress=progress)
            return await chosen_ef_search(session, target)

        ef_search = await self._connections.postgres.run(measure, idempotent=True)
        return Optimized(discarded, upkeep, ef_search)

    async def get_search_stats(self) -> SearchStats:
        """Return sizes, freshness, dead rows, pending lists, recall, cache hits, slow queries.

        Raises:
            StoreUnavailableError: PostgreSQL or Redis did not answer.
        """
        async with self._connections.postgres.session() as session:
            found = (await session.execute(_FRESHNESS)).mappings().one()
            freshness = Freshness(**found, text_configuration=await index_configuration(session))
            tables = await session.execute(_TABLE_STATS, _tables(SEARCH_TABLES))
            recall = await session.execute(_RECALL)
            return SearchStats(
                freshness=freshness,
                lag=await index_lag(self._connections.broker),
                tables=tuple(TableStats(*row) for row in tables),
                pending=await _pending_lists(session),
                recall=tuple(MeasuredRecall(*row) for row in recall),
                slowest=await _slowest(session),
            )


async def _pending_lists(session: AsyncSession) -> tuple[PendingList, ...]:
    # Its functions are for superusers and members of pg_stat_scan_tables.
    allowed = await session.scalar(
        text("SELECT has_function_privilege('pgstatginindex(regclass)', 'EXECUTE')")
    )
    if not allowed:
        return ()
    lists = []
    for index in list(await session.scalars(_GIN_INDEXES, _tables(SEARCH_TABLES))):
        pages, entries = (await session.execute(_PENDING, {"index": index})).one()
        lists.append(PendingList(index, pages, entries))
    return tuple(lists)


async def _slowest(session: AsyncSession) -> tuple[SlowQuery, ...]:
    if not await session.scalar(_COUNTS_QUERIES):
        return ()
    rows = await session.execute(_SLOW_QUERIES, {"limit": _SLOWEST})
    return tuple(SlowQuery(*row) for row in rows)


def _tables(names: Sequence[str]) -> dict[str, list[str]]:
    return {"tables": list(names)}
