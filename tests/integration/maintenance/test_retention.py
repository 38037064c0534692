import asyncio
import json
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text

from samplemind.connections.resources import Connections
from samplemind.errors import NotFoundError, PermanentError, TransientError
from samplemind.ids import new_id
from samplemind.maintenance import audit_archive
from samplemind.maintenance.archive import FOLDER, Archive, open_archive
from samplemind.maintenance.pace import LONGEST_MS
from samplemind.maintenance.retention import RetentionReport
from samplemind.maintenance.retention_run import run_retention
from samplemind.models.user import User
from samplemind.repositories.audit import AuditLogRepository
from samplemind.repositories.legal_holds import LegalHoldRepository
from samplemind.repositories.users import UserRepository
from samplemind.settings import MaintenanceSettings
from samplemind.storage.local import LocalStore
from samplemind.storage.opening import open_store
from samplemind.zstandard import zstd
from tests.object_stores import moto_server

NOW = datetime.now(UTC)
# In the morning, so that the minutes after it are of one day, whenever the tests run.
OLD = (NOW - timedelta(days=500)).replace(hour=6, minute=0, second=0, microsecond=0)


@pytest.fixture
async def ada(connections: Connections) -> User:
    async with connections.postgres.session() as session:
        return await UserRepository(session).get_or_create_owner("ada@example.org")


@pytest.fixture
def store(tmp_path: Path) -> Archive:
    return Archive(LocalStore(tmp_path / "archive"))


async def execute(connections: Connections, statement: str, **parameters: Any) -> Any:
    async with connections.postgres.session() as session:
        result = await session.execute(text(statement), parameters)
        return result.scalar_one() if result.returns_rows else None


async def hold(connections: Connections, **names: Any) -> None:
    async with connections.postgres.session() as session:
        await LegalHoldRepository(session).place(**names, reason="a case")


async def add_sessions(connections: Connections, user_id: UUID, number: int, at: datetime) -> None:
    for _ in range(number):
        await execute(
            connections,
            "INSERT INTO user_sessions (id, user_id, token_hash, expires_at, created_at) "
            "VALUES (:id, :user, :hash, :at, CAST(:at AS timestamptz) - interval '1 day')",
            id=new_id(),
            user=user_id,
            hash=secrets.token_bytes(32),
            at=at,
        )


async def add_audit(
    connections: Connections, number: int, at: datetime = OLD, actor: UUID | None = None
) -> None:
    await execute(
        connections,
        "INSERT INTO audit_logs (id, occurred_at, actor_kind, actor_id, action, resource_kind, "
        "details) SELECT gen_random_uuid(), CAST(:at AS timestamptz) + i * interval '1 minute', "
        "CASE WHEN CAST(:actor AS uuid) IS NULL THEN 'system' ELSE 'user' END, :actor, 'test.run', "
        "'test', jsonb_build_object('number', i) FROM generate_series(1, :number) AS i",
        at=at,
        actor=actor,
        number=number,
    )


async def count(connections: Connections, table: str, where: str = "true") -> int:
    return int(await execute(connections, f"SELECT count(*) FROM {table} WHERE {where}"))  # noqa: S608


async def run(
    connections: Connections, *only: str, dry_run: bool = False, **more: Any
) -> RetentionReport:
    return await run_retention(connections, dry_run=dry_run, only=only, **more)


async def test_a_rehearsal_tells_what_would_go_and_the_run_takes_exactly_that(
    connections: Connections, ada: User
) -> None:
    await add_sessions(connections, ada.id, 3, OLD)
    await add_sessions(connections, ada.id, 2, NOW + timedelta(days=1))
    rehearsal = await run(connections, "user_sessions", dry_run=True)
    [plan] = rehearsal.plans
    assert (plan.rows, plan.held_rows) == (3, 0)
    assert plan.oldest == plan.newest == OLD
    assert plan.size_bytes > 100
    assert await count(connections, "user_sessions") == 5

    report = await run(connections, "user_sessions")
    assert [(done.deleted, done.finished) for done in report.done] == [(3, True)]
    assert await count(connections, "user_sessions") == 2
    assert (await run(connections, "user_sessions")).done == []
    async with connections.postgres.session() as session:
        [entry] = await AuditLogRepository(session).of_action("retention.delete")
    assert entry.details["deleted"] == 3


async def test_a_hold_always_wins_and_ends_when_it_is_released(
    connections: Connections, ada: User, store: Archive
) -> None:
    await add_sessions(connections, ada.id, 2, OLD)
    await add_audit(connections, 4, actor=ada.id)
    await add_audit(connections, 3)
    await hold(connections, user_id=ada.id)
    report = await run(connections, "user_sessions", "audit_logs", store=store)
    plans = {plan.policy: plan for plan in report.plans}
    assert (plans["user_sessions"].rows, plans["user_sessions"].held_rows) == (0, 2)
    assert (plans["audit_logs"].rows, plans["audit_logs"].held_rows) == (3, 4)
    assert await count(connections, "user_sessions") == 2
    assert await count(connections, "audit_logs", "action = 'test.run'") == 4

    async with connections.postgres.session() as session:
        holds = LegalHoldRepository(session)
        await holds.release((await holds.active())[0].id)
    await run(connections, "user_sessions", "audit_logs", store=store)
    assert await count(connections, "user_sessions") == 0
    assert await count(connections, "audit_logs", "action = 'test.run'") == 0


async def test_audit_entries_are_in_the_archive_before_they_go(
    connections: Connections, store: Archive, tmp_path: Path
) -> None:
    await add_audit(connections, 3000)  # over two days: an object a day
    await add_audit(connections, 5, NOW - timedelta(days=1))
    lines = await execute(
        connections,
        "SELECT array_agg(row_to_json(a.*)::text ORDER BY occurred_at, id) FROM audit_logs AS a "
        "WHERE occurred_at < :now - interval '365 days'",
        now=NOW,
    )
    report = await run(connections, "audit_logs", store=store)
    assert report.done[0].deleted == 3000
    assert report.done[0].longest_transaction_ms > 0
    archived = []
    for path in sorted((tmp_path / "archive").rglob("*.ndjson.zst")):
        content = zstd.decompress(path.read_bytes())
        archived += content.decode().splitlines()
    assert archived == lines
    assert json.loads(archived[0])["details"] == {"number": 1}
    assert await count(connections, "audit_logs", "action = 'test.run'") == 5
    assert await count(connections, "audit_archives", "deleted_at IS NULL") == 0


async def test_the_database_lets_no_entry_go_without_its_archive(connections: Connections) -> None:
    await add_audit(connections, 1)
    with pytest.raises(PermanentError):
        await execute(connections, "DELETE FROM audit_logs WHERE action = 'test.run'")
    with pytest.raises(PermanentError):
        await execute(connections, "UPDATE audit_logs SET action = 'test.other'")


async def test_in_a_shared_object_store_the_archive_has_a_folder_of_its_own(
    connections: Connections,
) -> None:
    await add_audit(connections, 300)
    with moto_server() as storage:
        settings = connections.settings.model_copy(
            update={"storage": storage, "maintenance": MaintenanceSettings(archive=None)}
        )
        report = await run(connections, "audit_logs", store=open_archive(settings))
        assert report.done[0].deleted == 300
        shared = open_store(storage, settings.home)
        stored = {each.key for each in shared.list("")}
        key = await execute(connections, "SELECT key FROM audit_archives")
        assert stored == {f"{FOLDER}/{key}"}
        lines = zstd.decompress(open_archive(settings).get(key)).decode().splitlines()
        assert [json.loads(line)["details"]["number"] for line in lines] == list(range(1, 301))
        with pytest.raises(NotFoundError):
            open_archive(settings).get("no/such.ndjson.zst")


class Lying(Archive):
    """A store that gives back less than it was given."""

    def get(self, key: str) -> bytes:
        return super().get(key)[:-10]


async def test_an_archive_that_reads_back_wrong_keeps_its_entries(
    connections: Connections, tmp_path: Path
) -> None:
    await add_audit(connections, 50)
    with pytest.raises(TransientError, match="SHA-256"):
        await run(connections, "audit_logs", store=Lying(LocalStore(tmp_path)))
    assert await count(connections, "audit_logs", "action = 'test.run'") == 50
    assert await count(connections, "audit_archives") == 0


@pytest.mark.parametrize("after_chunks", [0, 1, 3])
async def test_a_run_that_is_killed_in_the_middle_is_finished_by_the_next(
    connections: Connections,
    store: Archive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after_chunks: int,
) -> None:
    await add_audit(connections, 1200)
    done = 0
    delete_chunk = audit_archive._delete_chunk

    async def die_soon(*arguments: Any) -> int:
        nonlocal done
        if done == after_chunks:
            raise asyncio.CancelledError
        done += 1
        return await delete_chunk(*arguments)

    monkeypatch.setattr(audit_archive, "_delete_chunk", die_soon)
    with pytest.raises(asyncio.CancelledError):
        await run(connections, "audit_logs", store=store)
    monkeypatch.undo()
    left = await count(connections, "audit_logs", "action = 'test.run'")
    assert (left == 1200) == (after_chunks == 0)
    assert await count(connections, "audit_archives", "deleted_at IS NULL") == 1

    await run(connections, "audit_logs", store=store)
    assert await count(connections, "audit_logs", "action = 'test.run'") == 0
    assert await count(connections, "audit_archives", "deleted_at IS NULL") == 0
    archived = await execute(connections, "SELECT sum(rows) FROM audit_archives")
    assert archived == 1200  # each entry once: the second run did not archive it again


async def test_chunks_stay_short_and_the_window_ends_a_run(
    connections: Connections, ada: User
) -> None:
    await execute(
        connections,
        "INSERT INTO periodic_runs (id, name, slot, job_id, host, started_at) "
        "SELECT gen_random_uuid(), 'a.job', i::text, '', '', now() - interval '90 days' "
        "FROM generate_series(1, 20000) AS i",
    )
    report = await run(connections, "periodic_runs")
    assert report.done[0].deleted == 20_000
    assert report.done[0].longest_transaction_ms < LONGEST_MS * 10  # the machine may be loaded


async def test_only_one_run_goes_on_and_none_beside_a_backup(
    connections: Connections, ada: User
) -> None:
    await add_sessions(connections, ada.id, 1, OLD)
    assert connections.settings.postgres.url is not None
    with psycopg.connect(
        connections.settings.postgres.url.get_secret_value(), autocommit=True
    ) as other:
        for name, why in (("retention", "another run"), ("backup", "a backup")):
            other.execute(f"SELECT pg_advisory_lock(hashtext('samplemind.{name}'), 0)")
            report = await run(connections, "user_sessions")
            assert report.skipped is not None
            assert why in report.skipped
            other.execute("SELECT pg_advisory_unlock_all()")
    assert await count(connections, "user_sessions") == 1


async def insert(connections: Connections, collection: str, *found: dict[str, Any]) -> list[UUID]:
    database = await connections.documents()
    made = [{"_id": new_id(), **each} for each in found]
    await database[collection].insert_many(made)
    return [each["_id"] for each in made]


async def test_documents_go_when_their_time_has_come_and_their_file_is_not_held(
    connections: Connections,
) -> None:
    database = await connections.documents()
    current = new_id()
    plain, held = await insert(
        connections,
        "audio_files",
        {"owner_id": None, "path": "/a", "tags": ["pad"], "analysis_id": current},
        {"owner_id": None, "path": "/b", "tags": ["kick"], "analysis_id": new_id()},
    )
    await database["analysis_results"].insert_one(
        {"_id": current, "audio_file_id": plain, "created_at": OLD}
    )
    superseded, _, _, orphan = await insert(
        connections,
        "analysis_results",
        {"audio_file_id": plain, "created_at": OLD},
        {"audio_file_id": held, "created_at": OLD},
        {"audio_file_id": plain, "created_at": NOW},
        {"audio_file_id": new_id(), "created_at": OLD},
    )
    ended, running = await insert(
        connections,
        "batch_jobs",
        {"state": "finished", "owner_id": None, "finished_at": OLD},
        {"state": "running", "owner_id": None, "finished_at": None},
    )
    await insert(
        connections,
        "batch_items",
        {"batch_id": ended, "audio_file_id": plain},
        {"batch_id": running, "audio_file_id": plain},
    )
    await hold(connections, tag="kick")
    policies = ("batch_items", "batch_jobs", "analysis_results", "orphaned_results")
    report = await run(connections, *policies)
    assert {done.policy: done.deleted for done in report.done} == {
        "batch_items": 1,
        "batch_jobs": 1,
        "analysis_results": 1,
    }
    left = {each["_id"] async for each in database["analysis_results"].find({}, {"_id": 1})}
    assert superseded not in left
    assert {current, orphan} <= left  # whose the orphan was can't be told: it stays with a hold
    assert await database["batch_jobs"].count_documents({}) == 1
    async with connections.postgres.session() as session:
        holds = LegalHoldRepository(session)
        await holds.release((await holds.active())[0].id)
    again = await run(connections, *policies)
    assert {done.policy: done.deleted for done in again.done} == {
        "analysis_results": 1,
        "orphaned_results": 1,
    }


async def test_places_in_collections_without_a_file_results_and_drafts_go(
    connections: Connections, ada: User, tmp_path: Path
) -> None:
    [there] = await insert(connections, "audio_files", {"owner_id": ada.id, "tags": []})
    collection = new_id()
    await execute(
        connections,
        "INSERT INTO audio_collections (id, owner_id, name) VALUES (:id, :owner, 'mine')",
        id=collection,
        owner=ada.id,
    )
    for position, file_id in enumerate((there, new_id())):
        await execute(
            connections,
            "INSERT INTO audio_collection_items (id, collection_id, audio_file_id, position, "
            "added_at) VALUES (:id, :collection, :file, :position, :at)",
            id=new_id(),
            collection=collection,
            file=file_id,
            position=position,
            at=OLD,
        )
    broker = connections.broker
    result = json.dumps({"status": "FAILURE", "date_done": OLD.isoformat()})
    await broker.set("sm:celery-task-meta-old", result)
    await broker.set("sm:celery-task-meta-ending", result, ex=1000)
    await broker.set("sm:celery-task-meta-odd", "not json")
    report = await run(connections, "orphaned_items", "celery_results")
    assert {done.policy: done.deleted for done in report.done} == {
        "orphaned_items": 1,
        "celery_results": 1,
    }
    assert await count(connections, "audio_collection_items") == 1
    assert await count(connections, "audio_collections", "file_count = 1") == 1
    assert await broker.exists("sm:celery-task-meta-ending", "sm:celery-task-meta-odd") == 2


async def add_letter(connections: Connections, state: str, at: datetime, **more: Any) -> UUID:
    letter_id: UUID = new_id()
    closed_at = None if state == "open" else at
    values = {
        "replay_job_id": new_id() if state == "replayed" else None,
        "published_at": closed_at,
        "reason": "seen" if state == "discarded" else None,
        **more,
    }
    await execute(
        connections,
        "INSERT INTO dead_letters (id, job_id, task, body, schema_version, code, error, attempts, "
        "worker, first_failed_at, last_failed_at, state, closed_at, replay_job_id, published_at, "
        "reason) VALUES (:id, 'a', 'a.job', '[]', 1, 'failed', 'it broke', 1, 'w', :at, :at, "
        ":state, :closed_at, :replay_job_id, :published_at, :reason)",
        id=letter_id,
        at=at,
        state=state,
        closed_at=closed_at,
        **values,
    )
    return letter_id


async def test_dead_letters_go_after_they_ended_and_open_ones_much_later(
    connections: Connections,
) -> None:
    await add_letter(connections, "replayed", OLD)
    await add_letter(connections, "discarded", OLD)
    kept = {
        await add_letter(connections, "open", OLD),
        await add_letter(connections, "discarded", NOW - timedelta(days=10)),
        await add_letter(connections, "replayed", OLD, published_at=None),  # still to be sent
    }
    forgotten = await add_letter(connections, "open", NOW - timedelta(days=800))

    await hold(connections, tag="kick")  # whose the jobs were can't be told
    held = await run(connections, "dead_letters", "open_dead_letters")
    assert {plan.policy: (plan.rows, plan.held_rows) for plan in held.plans} == {
        "dead_letters": (0, 2),
        "open_dead_letters": (0, 1),
    }
    async with connections.postgres.session() as session:
        holds = LegalHoldRepository(session)
        await holds.release((await holds.active())[0].id)

    report = await run(connections, "dead_letters")
    assert [done.deleted for done in report.done] == [2]
    assert await count(connections, "dead_letters", f"id = '{forgotten}'") == 1
    report = await run(connections, "open_dead_letters")
    assert [done.deleted for done in report.done] == [1]
    left = await execute(connections, "SELECT array_agg(id) FROM dead_letters")
    assert set(left) == kept
