import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from samplemind.errors import InvalidInputError, NotFoundError, TransientError
from samplemind.maintenance.findings import PlanProblem
from samplemind.maintenance.index_proof import ProofMethod
from samplemind.maintenance.index_suggestions import WorkloadQuery
from samplemind.maintenance.index_usage import IndexProblem, UsageLimits, find_useless, read_indexes
from samplemind.maintenance.query_optimizer import QueryOptimizer
from samplemind.maintenance.report import health_report
from samplemind.maintenance.report_pages import as_html, as_markdown
from samplemind.maintenance.session import MARK, Session
from samplemind.settings import MaintenanceSettings, Settings

pytestmark = pytest.mark.usefixtures("songs")

BY_ARTIST = "SELECT title FROM ill_songs WHERE artist = $1"


async def problems(optimizer: QueryOptimizer, sql: str, *, analyze: bool = False) -> set[str]:
    report = await optimizer.analyze_query(sql, analyze=analyze)
    return {finding.problem for finding in report.findings}


async def test_a_scan_of_a_large_table_is_found_until_it_has_its_index(
    optimizer: QueryOptimizer, session: Session
) -> None:
    sql = "SELECT title FROM ill_songs WHERE artist = 7"
    before = await optimizer.analyze_query(sql)
    [finding] = before.findings
    assert finding.problem is PlanProblem.LARGE_SEQUENTIAL_SCAN
    assert finding.evidence["table_rows"] == 20_000
    assert finding.evidence["rows_kept"] == pytest.approx(20, abs=10)
    assert "artist = 7" in str(finding.evidence["filter"])

    await session.execute("CREATE INDEX ON ill_songs (artist)")
    after = await optimizer.analyze_query(sql)
    assert after.findings == ()
    assert after.plan.root.cost < before.plan.root.cost / 5


async def test_reading_most_of_a_table_is_no_finding(optimizer: QueryOptimizer) -> None:
    assert await problems(optimizer, "SELECT sum(year) FROM ill_songs") == set()
    assert await problems(optimizer, "SELECT title FROM ill_songs WHERE year > 1960") == set()


async def test_a_wrong_estimate_is_found_and_extended_statistics_mend_it(
    optimizer: QueryOptimizer, session: Session
) -> None:
    await session.execute(
        "CREATE TABLE ill_pairs AS "
        "SELECT i % 200 AS a, i % 200 AS b FROM generate_series(1, 40000) AS i"
    )
    await session.execute("ANALYZE ill_pairs")
    sql = "SELECT count(*) FROM ill_pairs WHERE a = 5 AND b = 5"
    report = await optimizer.analyze_query(sql, analyze=True)
    [finding] = [f for f in report.findings if f.problem is PlanProblem.ROW_MISESTIMATE]
    assert finding.evidence["rows_actual"] == 200
    assert float(finding.evidence["factor"]) >= 10

    await session.execute("CREATE STATISTICS ill_ab (dependencies) ON a, b FROM ill_pairs")
    await session.execute("ANALYZE ill_pairs")
    assert PlanProblem.ROW_MISESTIMATE not in await problems(optimizer, sql, analyze=True)


async def test_stale_statistics_are_a_wrong_estimate(
    optimizer: QueryOptimizer, session: Session
) -> None:
    await session.execute("CREATE TABLE ill_stale (a int) WITH (autovacuum_enabled = false)")
    await session.execute("INSERT INTO ill_stale SELECT i FROM generate_series(1, 5000) AS i")
    await session.execute("ANALYZE ill_stale")
    await session.execute("UPDATE ill_stale SET a = 1")
    sql = "SELECT count(*) FROM ill_stale WHERE a = 1"
    assert PlanProblem.ROW_MISESTIMATE in await problems(optimizer, sql, analyze=True)
    await optimizer.optimize_table("ill_stale")
    assert PlanProblem.ROW_MISESTIMATE not in await problems(optimizer, sql, analyze=True)


async def test_a_sort_that_spills_is_found_and_one_in_memory_is_not(
    optimizer: QueryOptimizer, session: Session
) -> None:
    wide = "SELECT * FROM ill_songs AS a CROSS JOIN generate_series(1, 20) AS g ORDER BY title, g"
    report = await optimizer.analyze_query(wide, analyze=True)
    [spill] = [f for f in report.findings if f.problem is PlanProblem.SPILL]
    assert int(spill.evidence["spilled_kib"]) > 16 * 1024
    narrow = "SELECT id FROM ill_songs ORDER BY id DESC"
    assert PlanProblem.SPILL not in await problems(optimizer, narrow, analyze=True)


async def test_a_costly_nested_loop_and_a_wasteful_filter_are_found(
    optimizer: QueryOptimizer, session: Session
) -> None:
    loop = (
        "SELECT count(*) FROM ill_songs AS a JOIN ill_songs AS b "
        "ON a.year < b.year - 70 AND a.id < 200"
    )
    assert PlanProblem.COSTLY_NESTED_LOOP in await problems(optimizer, loop, analyze=True)
    by_key = "SELECT count(*) FROM ill_songs a JOIN ill_songs b ON b.id = a.artist WHERE a.id < 9"
    assert PlanProblem.COSTLY_NESTED_LOOP not in await problems(optimizer, by_key, analyze=True)

    await session.execute("CREATE INDEX ON ill_songs (year)")
    await session.execute("ANALYZE ill_songs")
    filtered = "SELECT id FROM ill_songs WHERE year BETWEEN 1960 AND 1964 AND title LIKE '%zzz%'"
    assert PlanProblem.FILTER_DISCARDS_MOST in await problems(optimizer, filtered, analyze=True)


async def test_partitions_that_are_read_for_nothing_are_found(
    optimizer: QueryOptimizer, session: Session
) -> None:
    await session.execute("CREATE TABLE ill_parts (at int, x int) PARTITION BY RANGE (at)")
    for part in range(5):
        await session.execute(
            f"CREATE TABLE ill_parts_{part} PARTITION OF ill_parts "
            f"FOR VALUES FROM ({part * 10}) TO ({part * 10 + 10})"
        )
    await session.execute("INSERT INTO ill_parts SELECT i, i FROM generate_series(0, 49) AS i")
    await session.execute("ANALYZE ill_parts")
    wanted = PlanProblem.PARTITIONS_READ_FOR_NOTHING
    assert wanted in await problems(optimizer, "SELECT * FROM ill_parts WHERE x = 7", analyze=True)
    pruned = "SELECT * FROM ill_parts WHERE at = 7"
    assert wanted not in await problems(optimizer, pruned, analyze=True)


async def test_analyzing_changes_nothing_and_is_ended_in_time(
    optimizer: QueryOptimizer, session: Session, migrated: Settings
) -> None:
    await optimizer.analyze_query("DELETE FROM ill_songs WHERE id < 1000", analyze=True)
    [row] = await (await session.execute("SELECT count(*) AS n FROM ill_songs")).fetchall()
    assert row["n"] == 20_000
    hasty = QueryOptimizer(
        migrated.model_copy(update={"maintenance": MaintenanceSettings(explain_timeout_ms=100)})
    )
    with pytest.raises(TransientError, match="statement timeout"):
        await hasty.analyze_query("SELECT pg_sleep(5)", analyze=True)


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "DROP TABLE ill_songs",
        "SELECT 1; DROP TABLE ill_songs",
        "SELECT $1::int; DROP TABLE ill_songs",
        "SELECT 1; COMMIT; DROP TABLE ill_songs",
        "SELECT FROM no_such_table",
        "SELECT ((",
    ],
)
async def test_what_is_no_single_statement_is_refused(
    optimizer: QueryOptimizer, session: Session, sql: str
) -> None:
    with pytest.raises(InvalidInputError):
        await optimizer.analyze_query(sql, analyze="$1" not in sql)
    await session.execute("SELECT FROM ill_songs LIMIT 1")


async def test_parameters_are_bound_and_placeholders_give_the_generic_plan(
    optimizer: QueryOptimizer,
) -> None:
    bound = await optimizer.analyze_query("SELECT 1 FROM ill_songs WHERE id = %s", [7])
    assert bound.plan.root.kind in ("Index Only Scan", "Index Scan")
    generic = await optimizer.analyze_query(BY_ARTIST)
    assert [f.problem for f in generic.findings] == [PlanProblem.LARGE_SEQUENTIAL_SCAN]


async def test_missing_indexes_are_suggested_proven_and_work(
    optimizer: QueryOptimizer, session: Session
) -> None:
    workload = [
        WorkloadQuery(BY_ARTIST, 100),
        WorkloadQuery("SELECT id FROM ill_songs WHERE artist = $1 AND year = $2", 10),
        WorkloadQuery("SELECT title FROM ill_songs WHERE id = $1", 1000),  # has its index
        WorkloadQuery("SELECT count(*) FROM ill_songs WHERE year > $1", 5),  # wants a third
    ]
    [suggestion] = [
        each
        for each in await optimizer.suggest_indexes(workload)
        if each.table == "ill_songs" and "artist" in each.keys[0]
    ]
    assert suggestion.method is ProofMethod.WHOLE_COPY
    assert {query.sql for query in suggestion.serves} == {workload[0].sql, workload[1].sql}
    assert suggestion.cost_after < suggestion.cost_before / 5

    await session.execute(suggestion.sql)  # CONCURRENTLY, as an operator would
    index = "SELECT pg_indexes_size('ill_songs') - pg_relation_size('ill_songs_pkey') AS bytes"
    [row] = await (await session.execute(index)).fetchall()
    assert row["bytes"] == pytest.approx(suggestion.size_bytes, rel=0.2)
    again = await optimizer.suggest_indexes(workload)
    assert not [each for each in again if each.keys == suggestion.keys]


async def test_a_proof_takes_no_lock_that_a_writer_waits_for(
    optimizer: QueryOptimizer, session: Session
) -> None:
    async with session.transaction():
        await session.execute("UPDATE ill_songs SET year = 1 WHERE id = 1")
        await session.execute("SET LOCAL lock_timeout = '2s'")
        found = await asyncio.wait_for(optimizer.suggest_indexes([WorkloadQuery(BY_ARTIST)]), 20)
    assert [each.keys for each in found] == [("artist",)]


async def test_useless_indexes_are_found_and_their_healthy_twins_are_not(
    session: Session,
) -> None:
    for definition in (
        "ill_twin_a ON ill_songs (artist)",
        "ill_twin_b ON ill_songs (artist)",
        "ill_wide ON ill_songs (artist, year)",
        "ill_descending ON ill_songs (artist DESC)",
        "ill_partial ON ill_songs (artist) WHERE year > 2000",
        "ill_unused ON ill_songs (title)",
    ):
        await session.execute(f"CREATE INDEX {definition}")
    with pytest.raises(psycopg.errors.UniqueViolation):
        await session.execute("CREATE UNIQUE INDEX CONCURRENTLY ill_broken ON ill_songs (genre)")
    for _ in range(3):
        await session.execute("SELECT count(*) FROM ill_songs")
    await session.execute("SELECT pg_stat_force_next_flush()")
    found = {
        each.index: each
        for each in find_useless(
            await read_indexes(session),
            datetime.now(UTC),
            UsageLimits(counted_for=timedelta(), table_reads=1, size_bytes=8192),
        )
        if each.table == "ill_songs"
    }
    assert found["ill_broken"].problem is IndexProblem.INVALID
    assert found["ill_twin_b"].problem in (IndexProblem.DUPLICATE, IndexProblem.REDUNDANT)
    assert found["ill_twin_a"].evidence["covered_by"] in ("ill_wide", "ill_twin_b")
    assert found["ill_unused"].problem is IndexProblem.UNUSED
    assert int(found["ill_unused"].evidence["size_bytes"]) > 1_000_000
    assert "ill_songs_pkey" not in found
    for useful in ("ill_wide", "ill_descending", "ill_partial"):
        assert useful not in found or found[useful].problem is IndexProblem.UNUSED

    # An index that was created just now has not had its chance yet.
    patient = find_useless(await read_indexes(session), datetime.now(UTC))
    assert "ill_unused" not in {each.index for each in patient}


async def test_slow_queries_are_normalised_and_our_own_leave_no_trace(
    optimizer: QueryOptimizer, session: Session, migrated: Settings
) -> None:
    await session.execute("SELECT pg_stat_statements_reset()")
    for _ in range(3):
        await session.execute("SELECT count(*) FROM ill_songs WHERE title LIKE '%secret%'")
    await health_report(migrated)
    await health_report(migrated)
    found = await optimizer.get_slow_queries(limit=20)
    [slow] = [each for each in found if "title LIKE" in each.query]
    assert slow.calls == 3
    assert "secret" not in slow.query
    assert slow.mean_ms > 0
    raw = await session.execute("SELECT query FROM pg_stat_statements")
    assert not [row for row in await raw.fetchall() if MARK in row["query"]]
    assert not [each for each in found if "pg_temp" in each.query or "EXPLAIN" in each.query]


async def test_tables_that_are_read_whole_again_and_again_are_listed(
    optimizer: QueryOptimizer, session: Session
) -> None:
    for _ in range(12):
        await session.execute("SELECT count(*) FROM ill_songs WHERE artist = 3")
    await session.execute("SELECT pg_stat_force_next_flush()")
    [missing] = [m for m in await optimizer.get_missing_indexes() if m.table == "ill_songs"]
    assert missing.rows_read_a_scan == pytest.approx(20_000, rel=0.1)
    [stats] = await optimizer.get_table_stats("ill_songs")
    assert stats.live_rows == 20_000
    with pytest.raises(NotFoundError):
        await optimizer.get_table_stats("no_such_table")


async def test_the_report_puts_the_missing_index_first_and_can_be_printed(
    session: Session, migrated: Settings
) -> None:
    await session.execute("SELECT pg_stat_statements_reset()")
    for artist in range(30):
        sql = f"SELECT title FROM ill_songs WHERE artist = {artist} -- <b>|</b>"  # noqa: S608
        await session.execute(sql)
    report = await health_report(migrated)
    [item] = [item for item in report.items if item.subject == "ill_songs (artist)"]
    assert item.evidence["calls"] == 30
    assert item.action.startswith("CREATE INDEX CONCURRENTLY")
    assert "<b>|</b>" not in as_html(report)
    assert "ill_songs (artist)" in as_markdown(report)
