"""The room of backups: the catalogue, the time line, proofs, and jobs that are sent once."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from samplemind.backup.archive import Coverage
from samplemind.backup.database_backup import Survey
from samplemind.connections.resources import Connections
from samplemind.jobs.client import Jobs
from samplemind.jobs.state import JobState
from samplemind.repositories.audit import AuditLogRepository
from tests.console_stores import back_up, verify
from tests.integration.console.conftest import ADA, Served, json_of, text_of
from worker.console.rooms.backups import find_problems, time_line

YES = {"confirmed": "1"}
JSON = "application/json"
MISSING = "20260101T000000Z-logical-00000000"


async def test_the_catalogue_shows_what_is_good_and_what_was_damaged_comes_first(
    served: Served, tmp_path: Path
) -> None:
    settings = served.console.connections.settings
    good = await back_up(settings, reason="before <i>the</i> move")
    await verify(settings, good.id)
    bad = await back_up(settings)
    (largest,) = sorted(
        (tmp_path / "backups" / "data" / bad.id).rglob("*"), key=lambda path: path.stat().st_size
    )[-1:]
    largest.write_bytes(b"x" * largest.stat().st_size)
    await verify(settings, bad.id)
    operator = served.by(ADA)
    page = text_of(await operator.get("/backups"))
    assert f"{bad.id} is not good" in page
    assert page.index("is not good") < page.index(f'data-key="{good.id}"')
    assert "before &lt;i&gt;the&lt;/i&gt; move" in page
    assert "level 1" in page
    assert "logical: 2 backups" in page
    one = text_of(await operator.get(f"/backups/{good.id}"))
    assert f"samplemind backup restore {good.id} --into samplemind_check" in one
    assert "This backup was never drilled." in one
    # A restore is not to be had by a slip of the finger.
    assert not re.search(r'action="[^"]*restore', one)
    assert (await operator.get(f"/backups/{MISSING}")).code == 404


async def test_a_backup_is_asked_for_once_however_often_the_button_is_pressed(
    served: Served, connections: Connections
) -> None:
    operator = served.by(ADA)
    fields = {**YES, "kind": "dump", "reason": "before the move"}
    first = json_of(await operator.post("/backups/create", fields, Accept=JSON))
    second = json_of(await operator.post("/backups/create", fields, Accept=JSON))
    assert first["job_id"] == second["job_id"]
    async with Jobs(connections.settings) as jobs:
        job = await jobs.status(first["job_id"])
    assert (job.task, job.state) == ("backups.create", JobState.WAITING)
    assert "backups.create" in text_of(await operator.get("/backups"))
    async with connections.postgres.session() as session:
        entries = await AuditLogRepository(session).of_action("console.create_backup")
    assert [entry.details["reason"] for entry in entries] == ["before the move"] * 2
    other = await operator.post("/backups/create", {**YES, "kind": "rubbish"}, Accept=JSON)
    assert other.code == 409


async def test_a_verification_names_the_backup_and_its_level(
    served: Served, connections: Connections
) -> None:
    made = await back_up(served.console.connections.settings)
    operator = served.by(ADA)
    sent = await operator.post(f"/backups/{made.id}/verify", {**YES, "level": "3"}, Accept=JSON)
    assert json_of(sent)["level"] == 3
    (message,) = await connections.broker.lrange("sm:maintenance", 0, -1)
    assert b"backups.verify" in message
    missing = await operator.post(f"/backups/{MISSING}/verify", YES, Accept=JSON)
    assert missing.code == 409
    drill = await operator.post(f"/backups/{made.id}/drill", YES, Accept=JSON)
    assert drill.code == 200


async def test_a_backup_on_hold_says_why_until_it_is_released(served: Served) -> None:
    made = await back_up(served.console.connections.settings)
    operator, here = served.by(ADA), f"/backups/{made.id}"
    held = await operator.post(f"{here}/hold", {**YES, "reason": "an audit asks for it"})
    assert held.code == 303
    page = text_of(await operator.get(here))
    assert "an audit asks for it" in page
    assert f"{here}/release" in page
    assert (await operator.post(f"{here}/release", YES)).code == 303
    assert "an audit asks for it" not in text_of(await operator.get(here))


def test_wal_that_is_missing_is_told_and_drawn_as_a_gap() -> None:
    now = datetime.now(UTC)
    begun, reached = now - timedelta(hours=12), now - timedelta(hours=6)
    broken = Coverage("base-1", begun, reached, "000000010000000000000004", "0000000100000005")
    problems = find_problems(Survey("file:///x", (), (broken,)), None, now)
    assert [problem.state for problem in problems] == ["danger", "danger"]
    assert "WAL is missing from 0000000100000005" in problems[1].text
    strips = time_line((), (broken,), now, timedelta(hours=24))
    (physical,) = [strip for strip in strips if strip.stretches]
    assert physical.name == "physical"
    assert [(part.look, part.start, part.end) for part in physical.stretches] == [
        ("covered", 500, 750),
        ("gap", 750, 1000),
    ]


def test_an_archive_without_a_gap_reaches_to_its_last_segment() -> None:
    now = datetime.now(UTC)
    whole = Coverage("base-1", now - timedelta(hours=4), now, "000000010000000000000004", None)
    strips = time_line((), (whole,), now, timedelta(hours=8))
    (physical,) = [strip for strip in strips if strip.stretches]
    assert [(part.look, part.start, part.end) for part in physical.stretches] == [
        ("covered", 500, 1000)
    ]
