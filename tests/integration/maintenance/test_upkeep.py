import asyncio
from datetime import date

import psycopg
import pytest

from samplemind.errors import InvalidInputError
from samplemind.maintenance.bloat import Method, bloat_report
from samplemind.maintenance.locks import BACKUP_LOCK, TABLE_LOCK
from samplemind.maintenance.partitions import maintain_partitions
from samplemind.maintenance.session import Session
from samplemind.maintenance.vacuum import (
    UpkeepLimits,
    find_needs,
    reindex_bloated,
    upkeep_needs,
    vacuum_due,
    vacuum_tables,
)
from samplemind.settings import Settings


@pytest.fixture
async def bloated(session: Session) -> None:
    """Nine tenths of the rows were deleted, in a table that autovacuum leaves alone."""
    await session.execute(
        "CREATE TABLE ill_bloated (id int PRIMARY KEY, filling text) "
        "WITH (autovacuum_enabled = false)"
    )
    await session.execute(
        "INSERT INTO ill_bloated SELECT i, repeat('x', 200) FROM generate_series(1, 60000) AS i"
    )
    await session.execute("ANALYZE ill_bloated")
    await session.execute("DELETE FROM ill_bloated WHERE id % 10 <> 0")
    await session.execute("SELECT pg_stat_force_next_flush()")


@pytest.mark.usefixtures("bloated", "songs")
async def test_bloat_is_found_measured_and_estimated_and_the_healthy_twin_is_not(
    session: Session,
) -> None:
    await session.execute("VACUUM ill_bloated")  # the rows are gone, their space is air
    await session.execute("ANALYZE ill_bloated")
    measured = await bloat_report(session)
    table = {each.name: each for each in measured.tables}
    index = {each.name: each for each in measured.indexes}
    assert table["ill_bloated"].method is Method.SAMPLED
    assert table["ill_bloated"].share == pytest.approx(0.9, abs=0.05)
    assert index["ill_bloated_pkey"].share > 0.7
    assert table["ill_songs"].share < 0.1

    from samplemind.maintenance import bloat

    [row] = [
        row for row in await bloat.fetch(session, bloat._TABLES) if row["name"] == "ill_bloated"
    ]
    assert bloat.estimate_table_waste(row) / row["size_bytes"] == pytest.approx(0.9, abs=0.05)


@pytest.mark.usefixtures("bloated", "songs")
async def test_vacuum_goes_where_it_is_due_and_nowhere_else(
    session: Session, patient: Settings
) -> None:
    due = {need.table: need for need in await upkeep_needs(patient)}
    assert due["ill_bloated"].command == "VACUUM (ANALYZE)"
    assert "54000 dead rows" in due["ill_bloated"].reason
    assert "ill_songs" not in due
    report = await vacuum_due(patient)
    assert "ill_bloated" in {each.name for each in report.done}
    await session.execute("SELECT pg_stat_force_next_flush()")
    assert "ill_bloated" not in {need.table for need in await upkeep_needs(patient)}


@pytest.mark.usefixtures("bloated")
async def test_a_bloated_index_is_built_anew_and_leftovers_go(
    session: Session, patient: Settings
) -> None:
    await session.execute("VACUUM ill_bloated")
    with pytest.raises(psycopg.errors.UniqueViolation):
        await session.execute(
            "CREATE UNIQUE INDEX CONCURRENTLY ill_index_ccnew ON ill_bloated (filling)"
        )
    before = {each.name: each for each in (await bloat_report(session)).indexes}
    report = await reindex_bloated(patient, UpkeepLimits(bloat_bytes=1 << 18))
    assert {"ill_index_ccnew", "ill_bloated_pkey"} <= {each.name for each in report.done}
    [row] = await (
        await session.execute("SELECT pg_relation_size('ill_bloated_pkey') AS size")
    ).fetchall()
    assert row["size"] < before["ill_bloated_pkey"].size_bytes / 4
    left = await session.execute("SELECT 1 FROM pg_class WHERE relname LIKE 'ill%ccnew'")
    assert await left.fetchall() == []


@pytest.mark.usefixtures("bloated")
async def test_upkeep_keeps_out_of_the_way_of_backups_of_others_and_of_locks(
    session: Session, patient: Settings
) -> None:
    take = "SELECT pg_advisory_lock(hashtext(%s), 0)"
    await session.execute(take, (BACKUP_LOCK,))
    report = await vacuum_tables(patient, ["ill_bloated"])
    assert report.skipped == [("ill_bloated", "a backup is running")]
    await session.execute("SELECT pg_advisory_unlock_all()")

    await session.execute(
        "SELECT pg_advisory_lock(hashtext(%s), "
        "'ill_bloated'::regclass::oid::bigint::bit(32)::int4)",
        (TABLE_LOCK,),
    )
    report = await vacuum_tables(patient, ["ill_bloated"])
    assert report.skipped == [("ill_bloated", "another upkeep works on it")]
    await session.execute("SELECT pg_advisory_unlock_all()")

    async with session.transaction():
        await session.execute("LOCK TABLE ill_bloated IN ACCESS EXCLUSIVE MODE")
        report = await asyncio.wait_for(vacuum_tables(patient, ["ill_bloated"]), 10)
    assert report.skipped == [("ill_bloated", "it is locked by somebody else")]
    assert [each.name for each in (await vacuum_tables(patient, ["ill_bloated"])).done]
    with pytest.raises(InvalidInputError, match="no_such_table"):
        await vacuum_tables(patient, ["no_such_table"])


def upkeep_row(**changed: object) -> dict[str, object]:
    healthy = {
        "oid": 1,
        "schema": "public",
        "table": "t",
        "kind": "r",
        "rows": 100_000.0,
        "dead_rows": 10,
        "inserted_rows": 10,
        "changed_rows": 10,
        "xid_age": 1000,
        "multixact_age": 1000,
        "freeze_max_age": 200_000_000,
        "multixact_max_age": 400_000_000,
    }
    return healthy | changed


@pytest.mark.parametrize(
    ("changed", "command"),
    [
        ({}, None),
        ({"dead_rows": 6000}, "VACUUM (ANALYZE)"),
        ({"dead_rows": 900, "rows": 1000.0}, None),  # too small to be worth it
        ({"inserted_rows": 30_000}, "VACUUM (ANALYZE)"),
        ({"changed_rows": 20_000}, "ANALYZE"),
        ({"xid_age": 120_000_000}, "VACUUM (FREEZE, ANALYZE)"),
        ({"multixact_age": 300_000_000}, "VACUUM (FREEZE, ANALYZE)"),
        ({"kind": "p", "changed_rows": 20_000}, "ANALYZE"),
    ],
)
def test_the_need_follows_from_the_figures(changed: dict[str, object], command: str | None) -> None:
    needs = find_needs([upkeep_row(**changed)])
    assert [need.command for need in needs] == ([command] if command else [])


async def test_an_age_near_a_lowered_limit_asks_for_a_freeze(session: Session) -> None:
    await session.execute("CREATE TABLE ill_old AS SELECT 1 AS a")
    for _ in range(20):
        await session.execute("SELECT pg_current_xact_id()")
    found = await session.execute(
        "SELECT age(relfrozenxid) AS age FROM pg_class WHERE relname = 'ill_old'"
    )
    [row] = await found.fetchall()
    assert row["age"] >= 20
    [need] = find_needs([upkeep_row(xid_age=row["age"], freeze_max_age=row["age"] + 10)])
    assert "FREEZE" in need.command


@pytest.mark.usefixtures("connections")
async def test_partitions_are_made_ahead_and_old_empty_ones_go(
    session: Session, migrated: Settings
) -> None:
    await maintain_partitions(migrated, date(2031, 5, 20))
    again = await maintain_partitions(migrated, date(2031, 5, 20))
    assert again["made"] == []
    await session.execute(
        "INSERT INTO audit_logs (id, occurred_at, actor_kind, action, resource_kind) VALUES "
        "(gen_random_uuid(), '2031-07-03', 'system', 'test.run', 'test')"
    )
    found = await session.execute("SELECT tableoid::regclass::text AS t FROM audit_logs")
    assert [row["t"] for row in await found.fetchall()] == ["audit_logs_2031_07"]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        await session.execute("DELETE FROM audit_logs_2031_07")

    later = await maintain_partitions(migrated, date(2033, 1, 1))
    assert set(later["dropped"]) == {"audit_logs_2031_06", "audit_logs_2031_08"}  # 07 holds a row
    for name in ("audit_logs_2031_07", *later["made"]):
        await session.execute(f"ALTER TABLE audit_logs DETACH PARTITION {name}")
        await session.execute(f"DROP TABLE {name}")
