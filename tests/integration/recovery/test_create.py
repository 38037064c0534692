"""What a backup under way promises: one moment, one at a time, whole or not there."""

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr
from pymongo.errors import PyMongoError

from samplemind.backup import mongo as mongo_store
from samplemind.backup import postgres_tools
from samplemind.backup.control import Control
from samplemind.backup.database_backup import BackupConfig, DatabaseBackup
from samplemind.backup.job_lock import hold_backup_lock
from samplemind.backup.manifest import BackupKind
from samplemind.errors import (
    BackupCancelledError,
    BackupError,
    ConflictError,
    MissingToolError,
    StorageError,
    StoreUnavailableError,
)
from samplemind.maintenance.locks import BACKUP_LOCK
from samplemind.storage.local import LocalStore
from samplemind.storage.store import Written
from tests.integration.recovery.conftest import Databases

ROWS = (
    "CREATE TABLE sounds (id int PRIMARY KEY, title text);"
    "INSERT INTO sounds SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 5000) i"
)


def test_money_that_moves_between_tables_and_collections_is_never_lost_or_doubled(
    databases: Databases,
) -> None:
    databases.sql(
        "CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE b (id int PRIMARY KEY, n int);"
        "INSERT INTO a SELECT i, 100 FROM generate_series(1, 50) i;"
        "INSERT INTO b SELECT i, 100 FROM generate_series(1, 50) i"
    )
    stop = threading.Event()
    moved = [0, 0]
    with mongo_store.connect(databases.settings.mongo) as client:
        source = client[databases.settings.mongo.database]
        for name in ("a", "b"):
            source[name].insert_many({"_id": i, "n": 100} for i in range(50))
        writers = [
            threading.Thread(target=_move_rows, args=(databases, stop, moved)),
            threading.Thread(target=_move_documents, args=(client, source, stop, moved)),
        ]
        for writer in writers:
            writer.start()
        try:
            made = [databases.backup.create_backup() for _ in range(3)]
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        assert min(moved) > 0
        for number, each in enumerate(made):
            copy = f"{databases.server.database}_{number}"
            databases.backup.restore_backup(each.id, into=copy)
            total = "SELECT (SELECT sum(n) FROM a) + (SELECT sum(n) FROM b)"
            assert databases.sql(total, database=copy) == [(10_000,)]
            restored = client[copy]
            assert sum(d["n"] for name in "ab" for d in restored[name].find()) == 10_000
            assert each.gap_ms is not None
            assert each.gap_ms < 5_000


def test_a_second_backup_of_the_same_database_is_refused_and_named(databases: Databases) -> None:
    with (
        hold_backup_lock(databases.server),
        pytest.raises(ConflictError, match=r"another backup or restore .* session"),
    ):
        databases.backup.create_backup()
    assert databases.backup.create_backup().id


def test_the_lock_of_a_lost_connection_keeps_the_manifest_from_being_published(
    databases: Databases,
) -> None:
    databases.sql(ROWS)
    published = []

    def cut(step: object) -> None:
        if getattr(step, "phase", "") == "publishing":
            published.append(True)
            databases.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )

    with pytest.raises(Exception, match="lost its lock"):
        databases.backup.create_backup(control=Control(tell=cut))
    assert published
    assert databases.backup.list_backups() == []
    assert databases.names() == []


def test_a_cancelled_backup_leaves_nothing(databases: Databases) -> None:
    databases.sql(ROWS)
    control = Control(tell=lambda step: control.cancel())

    with pytest.raises(BackupCancelledError):
        databases.backup.create_backup(control=control)

    assert databases.names() == []
    assert databases.backup.create_backup(control=Control()).id


@pytest.mark.parametrize("after", [0, 2])
def test_a_store_that_fails_midway_leaves_no_backup_and_the_next_one_works(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    databases.sql(ROWS)
    kept = LocalStore.put_stream
    calls: list[str] = []

    def full(self: LocalStore, key: str, blocks: Iterable[bytes]) -> Written:
        calls.append(key)
        return kept(self, key, _until_full(blocks) if len(calls) > after else blocks)

    monkeypatch.setattr(LocalStore, "put_stream", full)
    with pytest.raises(StorageError, match="no space"):
        databases.backup.create_backup()
    assert databases.backup.list_backups() == []
    monkeypatch.setattr(LocalStore, "put_stream", kept)
    assert databases.names() == []
    made = databases.backup.create_backup()
    assert [entry.id for entry in databases.backup.list_backups()] == [made.id]


def test_a_server_that_ends_the_dump_fails_the_backup(databases: Databases) -> None:
    databases.sql(ROWS)

    def kill(step: object) -> None:
        databases.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'samplemind-backup' "
            "AND pid <> pg_backend_pid() AND query LIKE 'COPY%%'"
        )

    databases.sql(
        "INSERT INTO sounds SELECT i, repeat('x', 2000) FROM generate_series(5001, 9000) i"
    )
    control = Control(tell=kill, bytes_per_s=2 * 2**20)
    with pytest.raises((BackupError, StoreUnavailableError)) as failure:
        databases.backup.create_backup(control=control)
    assert "stopped sending rows" in str(failure.value) or "lost" in str(failure.value)
    assert databases.names() == []


def test_the_password_is_in_no_command_line_manifest_or_error(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[str] = []
    start = postgres_tools.subprocess.Popen

    def watch(command: list[str], **options: object) -> object:
        commands.append(" ".join(command))
        return start(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(postgres_tools.subprocess, "Popen", watch)
    databases.sql(ROWS)
    databases.backup.create_backup()
    assert databases.settings.postgres.url is not None
    password = psycopg.conninfo.conninfo_to_dict(
        databases.settings.postgres.url.get_secret_value()
    )["password"]
    assert any("pg_dump" in command for command in commands)
    assert not any(str(password) in command for command in commands)
    for path in databases.folder.rglob("*.json"):
        assert str(password) not in path.read_text()


def test_a_newer_server_than_the_programs_is_told_before_anything_is_written(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "samplemind.backup.create.find_tools", lambda _: postgres_tools.find_tools(99)
    )
    with pytest.raises(MissingToolError, match="postgresql-client-99"):
        databases.backup.create_backup()
    assert databases.names() == []


def test_two_backups_in_one_second_and_a_clock_set_back_are_two_backups(
    databases: Databases,
) -> None:
    made = {databases.backup.create_backup(BackupKind.DUMP).id for _ in range(2)}
    assert len({entry.id for entry in databases.backup.list_backups()}) == len(made) == 2


def test_a_configuration_as_of_old_chooses_place_days_and_no_compression(
    databases: Databases, tmp_path: Path
) -> None:
    config = BackupConfig(backup_dir=tmp_path / "other", retention_days=7, compress=False)
    backup = DatabaseBackup(config, settings=databases.settings)
    made = backup.create_backup()
    assert backup.location.endswith(str(tmp_path / "other"))
    assert backup.settings.backup.keep_days == 7
    assert {record.codec.value for record in made.objects} == {"none"}


def _until_full(blocks: Iterable[bytes]) -> Iterator[bytes]:
    for block in blocks:
        yield block[: len(block) // 2]
        break
    message = "no space left"
    raise StorageError(message)


def test_a_backup_waits_for_the_upkeep_of_a_table_and_lets_no_other_begin(
    databases: Databases,
) -> None:
    shared = "SELECT pg_try_advisory_lock_shared(hashtext(%s), 0)"
    waiting = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = "
        "(SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    ended = threading.Event()

    def back_up() -> None:
        with hold_backup_lock(databases.server):
            ended.set()

    with databases.server.connect() as upkeep:
        upkeep.execute(shared, (BACKUP_LOCK,))
        backup = threading.Thread(target=back_up)
        backup.start()
        deadline = time.monotonic() + 30
        while databases.sql(waiting) != [(1,)]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert databases.sql(shared, BACKUP_LOCK) == [(False,)]
        assert not ended.is_set()
    backup.join(30)
    assert ended.is_set()


def test_upkeep_that_does_not_end_stops_a_backup_with_a_clear_word(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samplemind.backup.job_lock.UPKEEP_WAIT_S", 1)
    with databases.server.connect() as upkeep:
        upkeep.execute("SELECT pg_advisory_lock_shared(hashtext(%s), 0)", (BACKUP_LOCK,))
        with (
            pytest.raises(ConflictError, match="upkeep of a table has not ended"),
            hold_backup_lock(databases.server),
        ):
            pytest.fail("the lock was given")


def _move_rows(databases: Databases, stop: threading.Event, moved: list[int]) -> None:
    with databases.server.connect(autocommit=False) as connection:
        while not stop.is_set():
            place = moved[0] % 50 + 1
            connection.execute("UPDATE a SET n = n - 1 WHERE id = %s", (place,))
            connection.execute("UPDATE b SET n = n + 1 WHERE id = %s", (51 - place,))
            connection.commit()
            moved[0] += 1


def _move_documents(client, source, stop: threading.Event, moved: list[int]) -> None:  # type: ignore[no-untyped-def]
    while not stop.is_set():
        place = moved[1] % 50
        with client.start_session() as session:
            try:
                with session.start_transaction():
                    source["a"].update_one({"_id": place}, {"$inc": {"n": -1}}, session=session)
                    source["b"].update_one({"_id": 49 - place}, {"$inc": {"n": 1}}, session=session)
            except PyMongoError:
                continue
        moved[1] += 1


def test_rows_that_the_server_itself_may_lose_are_left_out_with_a_word(
    databases: Databases,
) -> None:
    databases.sql("CREATE TABLE kept AS SELECT 1 AS n; CREATE UNLOGGED TABLE passing AS SELECT 2")
    made = databases.backup.create_backup()
    (remark,) = made.remarks
    assert "unlogged tables (public.passing) the definitions are in it and no rows" in remark
    databases.sql("DROP TABLE passing")
    assert databases.backup.create_backup().remarks == ()


def test_a_refused_login_is_told_with_its_reason_and_without_the_password(
    databases: Databases,
) -> None:
    server = databases.server
    fields = {**server._fields(), "password": "not-the-password"}
    wrong = postgres_tools.Server(SecretStr(make_conninfo(**fields)))
    with pytest.raises(StoreUnavailableError, match="password authentication failed") as failed:
        wrong.connect()
    assert "not-the-password" not in str(failed.value)
    missing = server.with_database("no_such_database")
    with pytest.raises(StoreUnavailableError, match='"no_such_database" does not exist'):
        missing.connect()
