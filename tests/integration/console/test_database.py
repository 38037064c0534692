"""The room of the database: who waits for whom, what is slow, and upkeep of one table."""

import asyncio

from sqlalchemy import text

from samplemind.connections.resources import Connections
from samplemind.jobs.client import Jobs
from samplemind.maintenance.activity import Activity, activity
from samplemind.repositories.audit import AuditLogRepository
from tests.integration.console.conftest import ADA, Served, json_of, text_of
from worker.console.rooms.database import find_problems

YES = {"confirmed": "1"}
JSON = "application/json"


async def wait_for_a_waiter(connections: Connections) -> Activity:
    async with asyncio.timeout(20):
        # Each look is a connection of its own: that is pace enough.
        while not (found := await activity(connections.settings)).waiting:
            pass
        return found


async def test_who_waits_for_a_lock_is_shown_with_who_holds_it(
    served: Served, connections: Connections
) -> None:
    async with connections.postgres.session() as holder:
        await holder.execute(text("LOCK TABLE legal_holds IN ACCESS EXCLUSIVE MODE"))
        pid = await holder.scalar(text("SELECT pg_backend_pid()"))

        async def wait() -> None:
            async with connections.postgres.session() as waiter:
                await waiter.execute(text("SELECT count(*) FROM legal_holds WHERE reason = 'mine'"))

        waiting = asyncio.create_task(wait())
        found = await wait_for_a_waiter(connections)
        (stuck,) = found.waiting
        assert (stuck.relation, stuck.blockers) == ("legal_holds", (pid,))
        page = text_of(await served.by(ADA).get("/database"))
        assert f'data-key="pid-{pid}"' in page
        assert f'data-key="pid-{stuck.pid}"' in page
        # No value that somebody searched for is told.
        assert "mine" not in page
        await holder.rollback()
        await waiting
    assert find_problems(await activity(connections.settings)) == []


async def test_the_page_shows_statements_tables_and_what_is_due(served: Served) -> None:
    operator = served.by(ADA)
    page = text_of(await operator.get("/database?by=mean"))
    assert "Share of time" in page
    async with asyncio.timeout(60):
        # The report takes a second or two; each look waits for it a while.
        while 'data-key="table-public-users"' not in page:
            page = text_of(await operator.get("/database"))
    assert "Until wraparound" in page
    assert 'value="search_texts"' in page


async def test_a_table_is_vacuumed_by_a_worker_and_sent_once(
    served: Served, connections: Connections
) -> None:
    operator = served.by(ADA)
    asked = text_of(await operator.post("/database/vacuum", {"table": "users"}))
    assert "VACUUM and ANALYZE this table now?" in asked
    fields = {**YES, "table": "users"}
    first = json_of(await operator.post("/database/vacuum", fields, Accept=JSON))
    second = json_of(await operator.post("/database/vacuum", fields, Accept=JSON))
    assert first["job_id"] == second["job_id"]
    async with Jobs(connections.settings) as jobs:
        assert (await jobs.status(first["job_id"])).task == "maintenance.vacuum_tables"
    assert (await operator.post("/database/analyze", fields, Accept=JSON)).code == 200
    assert "maintenance.vacuum_tables" in text_of(await operator.get("/database"))
    async with connections.postgres.session() as session:
        entries = await AuditLogRepository(session).of_action("console.vacuum_table")
    assert {entry.resource_id for entry in entries} == {"users"}


async def test_a_table_that_does_not_exist_is_refused(
    served: Served, connections: Connections
) -> None:
    for name in ("no_such_table", "users; DROP TABLE users", ""):
        answer = await served.by(ADA).post("/database/vacuum", {**YES, "table": name}, Accept=JSON)
        assert answer.code == 409, name
    assert await connections.broker.llen("sm:maintenance") == 0
