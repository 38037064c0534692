import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from samplemind.connections.postgres import ConnectionPool
from samplemind.errors import InvalidInputError, PermanentError
from samplemind.models.audit_log import ActorKind, AuditOutcome
from samplemind.models.user import User
from samplemind.repositories.audit import AuditLogRepository

_HOUR = timedelta(hours=1)


async def _count(pool: ConnectionPool) -> int:
    async with pool.session() as session:
        return int(await session.scalar(text("SELECT count(*) FROM audit_logs")) or 0)


async def test_each_question_finds_its_entries(pool: ConnectionPool, owner: User) -> None:
    now = datetime.now(UTC)
    async with pool.session() as session:
        log = AuditLogRepository(session)
        published = await log.record(
            "collection.publish",
            resource_kind="collection",
            resource_id="c-1",
            actor_kind=ActorKind.USER,
            actor_id=owner.id,
            ip_address=ipaddress.ip_address("192.0.2.7"),
            request_id="r-1",
            details={"name": "Kicks", "files": 12},
        )
        denied = await log.record(
            "user.sign_in", resource_kind="user", outcome=AuditOutcome.DENIED, request_id="r-2"
        )
    async with pool.session() as session:
        log = AuditLogRepository(session)
        answers = [
            await log.of_actor(owner.id),
            await log.of_resource("collection", "c-1"),
            await log.of_action("collection.publish"),
            await log.of_request("r-1"),
            await log.with_details({"name": "Kicks"}),
        ]
        assert [[entry.id for entry in answer] for answer in answers] == [[published.id]] * 5
        assert [entry.id for entry in await log.problems(now - _HOUR)] == [denied.id]
        assert len(await log.between(now - _HOUR, now + _HOUR)) == 2
        assert len(await log.between(now - 2 * _HOUR, now - _HOUR)) == 0


@pytest.mark.parametrize("table", ["audit_logs", "audit_logs_default"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {table} SET action = 'nothing.happened'",
        "UPDATE {table} SET occurred_at = now() - interval '1 year'",
        "DELETE FROM {table}",
        "TRUNCATE {table}",
        (
            "INSERT INTO {table} SELECT * FROM audit_logs "
            "ON CONFLICT (id, occurred_at) DO UPDATE SET action = 'nothing.happened'"
        ),
    ],
)
async def test_an_entry_stays_as_it_was_written(
    pool: ConnectionPool, table: str, statement: str
) -> None:
    async with pool.session() as session:
        await AuditLogRepository(session).record("job.cancel", resource_kind="job")
    with pytest.raises(PermanentError):
        async with pool.session() as session:
            await session.execute(text(statement.format(table=table)))
    assert await _count(pool) == 1
    async with pool.session() as session:
        assert len(await AuditLogRepository(session).of_action("job.cancel")) == 1


async def test_not_even_the_tables_owner_has_the_privilege(pool: ConnectionPool) -> None:
    # The owner of an ordinary installation is no superuser, whom privileges do not bind.
    async with pool.session() as session:
        granted = await session.scalars(
            text(
                "SELECT DISTINCT privilege_type FROM pg_class, aclexplode(relacl) "
                "WHERE relname IN ('audit_logs', 'audit_logs_default')"
            )
        )
        privileges = set(granted)
    assert {"INSERT", "SELECT"} <= privileges
    assert privileges.isdisjoint({"UPDATE", "DELETE", "TRUNCATE"})


async def test_an_entry_goes_to_its_months_partition_or_else_to_the_default(
    pool: ConnectionPool,
) -> None:
    # Undone at the end, as a later month must not keep it.
    async with pool.session() as session:
        await session.execute(
            text(
                "CREATE TABLE audit_logs_2031_05 PARTITION OF audit_logs "
                "FOR VALUES FROM ('2031-05-01') TO ('2031-06-01')"
            )
        )
        for day in ("2031-05-31 23:59:59+00", "2031-06-01 00:00:00+00"):
            await session.execute(
                text(
                    "INSERT INTO audit_logs (id, occurred_at, actor_kind, action, resource_kind) "
                    "VALUES (gen_random_uuid(), CAST(:day AS timestamptz), 'system', 'a.b', 'x')"
                ),
                {"day": day},
            )
        places = await session.scalars(
            text("SELECT tableoid::regclass::text FROM audit_logs ORDER BY occurred_at")
        )
        assert places.all() == ["audit_logs_2031_05", "audit_logs_default"]
        with pytest.raises(PermanentError):
            async with session.begin_nested():
                await session.execute(text("DELETE FROM audit_logs_2031_05"))
        # An archived month is free of the rule: it is no part of the log any more.
        await session.execute(text("ALTER TABLE audit_logs DETACH PARTITION audit_logs_2031_05"))
        await session.execute(text("DELETE FROM audit_logs_2031_05"))
        await session.rollback()


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "Publish"},
        {"action": "collection.publish", "actor_kind": ActorKind.USER},
    ],
)
async def test_an_entry_that_does_not_say_who_or_what_is_refused(
    pool: ConnectionPool, wrong: dict[str, str]
) -> None:
    with pytest.raises(InvalidInputError):
        async with pool.session() as session:
            await AuditLogRepository(session).record(resource_kind="x", **wrong)  # type: ignore[arg-type]


async def test_an_entry_is_kept_exactly_if_what_it_tells_is(pool: ConnectionPool) -> None:
    async def record_and_fail() -> None:
        async with pool.session() as session:
            await AuditLogRepository(session).record("job.cancel", resource_kind="job")
            raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"):
        await record_and_fail()
    assert await _count(pool) == 0
