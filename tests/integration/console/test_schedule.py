"""The schedule's room: how each job stands, its runs, and running it now."""

import json
from datetime import timedelta

from samplemind.connections.resources import Connections
from samplemind.jobs.periodic import MANUAL, SLOT_HEADER
from samplemind.jobs.wire import Queue, queue_keys
from samplemind.repositories.audit import AuditLogRepository
from samplemind.repositories.periodic_runs import RunOutcome
from tests.console_stores import BEAT, add_run, leave_schedule
from tests.integration.console.conftest import ADA, Served, json_of, text_of

YES = {"confirmed": "1"}
JSON = "application/json"


async def test_what_is_overdue_or_fails_comes_first_with_its_error(
    served: Served, connections: Connections
) -> None:
    await leave_schedule(connections, known_for=timedelta(seconds=1))
    await add_run(connections, "search.index", RunOutcome.SUCCEEDED)
    await add_run(
        connections, "retention.run", RunOutcome.FAILED, error="the bucket is <b>full</b>"
    )
    page = text_of(await served.by(ADA).get("/schedule"))
    assert BEAT in page
    trouble = page.index('data-key="retention.run"')
    assert trouble < page.index('data-key="backups.create"')
    assert "the bucket is &lt;b&gt;full&lt;/b&gt;" in page
    assert "never run" in page


async def test_a_job_that_beat_no_longer_sends_is_overdue_and_the_missing_beat_is_told(
    served: Served, connections: Connections
) -> None:
    await leave_schedule(connections, known_for=timedelta(days=400))
    await connections.broker.delete("sm:beat:leader")
    page = text_of(await served.by(ADA).get("/schedule"))
    assert "No beat leads: nothing periodic is sent." in page
    assert "overdue" in page


async def test_a_job_shows_its_runs(served: Served, connections: Connections) -> None:
    await leave_schedule(connections, known_for=timedelta(seconds=1))
    for number in range(3):
        await add_run(
            connections,
            "search.fold",
            RunOutcome.SUCCEEDED,
            slot=f"2026-01-0{number + 1}T00:00:00Z",
            seconds=0.2 + number,
            figures={"folded": 1200, "waiting": 7},
        )
    await add_run(connections, "search.fold", RunOutcome.FAILED, slot=f"{MANUAL}x", error="no room")
    operator = served.by(ADA)
    page = text_of(await operator.get("/schedule/search.fold"))
    assert "folded 1\N{NARROW NO-BREAK SPACE}200, waiting 7" in page
    assert "no room" in page
    assert "an operator" in page
    assert "&quot;values&quot;: [0.2, 1.2, 2.2, 0.4]" in page
    assert (await operator.get("/schedule/no.such")).code == 404


async def test_running_a_job_now_sends_what_beat_sends_with_a_slot_of_its_own(
    served: Served, connections: Connections
) -> None:
    await leave_schedule(connections, known_for=timedelta(seconds=1))
    operator = served.by(ADA)
    asked = await operator.post("/schedule/backups.verify/run", {"next": "/schedule"})
    assert "Run this job now?" in text_of(asked)
    key = queue_keys(Queue.MAINTENANCE.value)[0]
    assert await connections.broker.llen(key) == 0
    done = json_of(await operator.post("/schedule/backups.verify/run", YES, Accept=JSON))
    (message,) = [json.loads(each) for each in await connections.broker.lrange(key, 0, -1)]
    assert message["headers"]["task"] == "backups.verify"
    assert message["headers"]["id"] == done["job_id"]
    assert message["headers"][SLOT_HEADER] == f"{MANUAL}{done['job_id']}"
    async with connections.postgres.session() as session:
        (entry,) = await AuditLogRepository(session).of_action("console.run_periodic_job")
    assert (entry.resource_id, entry.outcome) == ("backups.verify", "success")


async def test_a_job_that_does_not_recur_cannot_be_run(served: Served) -> None:
    answer = await served.by(ADA).post("/schedule/no.such/run", YES, Accept=JSON)
    assert answer.code == 409
    assert "no beat has run yet" in json_of(answer)["message"]
