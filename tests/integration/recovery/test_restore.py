"""A restore refuses before it harms, finds what is wrong, and tells what to do."""

import base64
import shutil
from collections.abc import Callable

import psycopg
import pytest
import redis
from pydantic import SecretStr

from samplemind.backup import mongo as mongo_store
from samplemind.backup.control import Control, Step
from samplemind.backup.database_backup import BackupConfig, DatabaseBackup
from samplemind.backup.manifest import BackupKind
from samplemind.backup.restore import Choice
from samplemind.backup.verification import Level
from samplemind.cli.backup_run import parse_target
from samplemind.endpoints import Store
from samplemind.errors import (
    BackupCancelledError,
    BackupCorruptError,
    BackupError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    SecretError,
)
from samplemind.jobs.wire import heartbeat_key
from samplemind.settings import BackupSettings, Settings
from tests.integration.recovery.conftest import Databases
from tests.object_stores import FaultyProxy

ROWS = (
    "CREATE EXTENSION IF NOT EXISTS vector;"
    "CREATE TABLE sounds (id int PRIMARY KEY, title text, e vector(4));"
    "CREATE INDEX near ON sounds USING hnsw (e vector_l2_ops);"
    "INSERT INTO sounds SELECT i, 'kick ' || i, ARRAY[i, i, 1, 2]::vector "
    "FROM generate_series(1, 500) i"
)
KEYS = {
    "first": base64.b64encode(b"1" * 32).decode(),
    "other": base64.b64encode(b"2" * 32).decode(),
}


def with_keys(databases: Databases, *names: str) -> DatabaseBackup:
    backup = BackupSettings.model_validate({"keys": {name: KEYS[name] for name in names}})
    settings = databases.settings.model_copy(update={"backup": backup})
    return DatabaseBackup(BackupConfig(backup_dir=databases.folder), settings=settings)


def test_a_target_that_holds_anything_is_refused_and_unchanged(databases: Databases) -> None:
    databases.sql(ROWS)
    databases.backup.create_backup()
    databases.sql("UPDATE sounds SET title = 'later'")

    with pytest.raises(ConflictError, match=r"not empty \(1 relations, such as public.sounds\)"):
        databases.backup.restore_backup()

    assert databases.sql("SELECT DISTINCT title FROM sounds") == [("later",)]


def test_documents_in_the_way_are_refused_before_postgres_is_touched(databases: Databases) -> None:
    databases.sql(ROWS)
    copy = f"{databases.server.database}_copy"
    with mongo_store.connect(databases.settings.mongo) as client:
        client[databases.settings.mongo.database]["x"].insert_one({"_id": 1})
        databases.backup.create_backup()
        client[copy]["x"].insert_one({"_id": 2})

        with pytest.raises(ConflictError, match=r"MongoDB database .* not empty"):
            databases.backup.restore_backup(into=copy)

        assert [each["_id"] for each in client[copy]["x"].find()] == [2]
    assert databases.sql("SELECT 1 FROM pg_database WHERE datname = %s", copy) == []


def test_dropping_makes_a_safety_backup_from_which_the_dropped_comes_back(
    databases: Databases,
) -> None:
    databases.sql(ROWS)
    first = databases.backup.create_backup()
    databases.sql("UPDATE sounds SET title = 'later'")

    databases.backup.restore_backup(first.id, choice=Choice(drop=True))

    assert databases.sql("SELECT count(*) FROM sounds WHERE title LIKE 'kick%%'") == [(500,)]
    safety, _ = databases.backup.list_backups()
    assert safety.manifest is not None
    assert safety.manifest.reason == f"before a restore of {first.id}"
    copy = f"{databases.server.database}_copy"
    databases.backup.restore_backup(safety.id, into=copy)
    assert databases.sql("SELECT DISTINCT title FROM sounds", database=copy) == [("later",)]


def test_a_restore_that_fails_or_is_cancelled_has_changed_nothing(databases: Databases) -> None:
    databases.sql(ROWS)
    with mongo_store.connect(databases.settings.mongo) as client:
        source = client[databases.settings.mongo.database]
        source["x"].insert_many({"_id": n} for n in range(50))
        made = databases.backup.create_backup()
        databases.sql("UPDATE sounds SET title = 'later'")
        source["x"].delete_many({"_id": {"$gte": 10}})
        named = databases.names()
        for phase in ("documents", "rows", "indexes and keys", "vector index"):
            control = Control(tell=_cancelling_at(phase))
            with pytest.raises(BackupCancelledError):
                databases.backup.restore_backup(
                    made.id, choice=Choice(drop=True), safety_backup=False, control=control
                )
            assert databases.sql("SELECT DISTINCT title FROM sounds") == [("later",)], phase
            assert source["x"].count_documents({}) == 10
            assert source.list_collection_names() == ["x"]
        largest = max(made.objects, key=lambda record: record.size_bytes)
        (databases.folder / "data" / made.id / largest.name).write_bytes(b"damaged")
        with pytest.raises(BackupCorruptError):
            databases.backup.restore_backup(made.id, choice=Choice(drop=True), safety_backup=False)
        assert databases.sql("SELECT DISTINCT title FROM sounds") == [("later",)]
        assert source.list_collection_names() == ["x"]
    assert databases.names() == named
    beside = "SELECT count(*) FROM pg_database WHERE datname LIKE current_database() || '%%'"
    assert databases.sql(beside) == [(1,)]


def _cancelling_at(phase: str) -> Callable[[Step], None]:
    def tell(step: Step) -> None:
        if step.phase == phase:
            message = "cancelled by the test"
            raise BackupCancelledError(message)

    return tell


def test_the_switch_ends_sessions_and_leaves_only_what_the_backup_has(
    databases: Databases,
) -> None:
    databases.sql(ROWS)
    name = databases.settings.mongo.database
    with mongo_store.connect(databases.settings.mongo) as client:
        source = client[name]
        source["x"].insert_one({"_id": 1})
        source["x"].create_index("n", name="by n")
        source.create_collection("seen", viewOn="x", pipeline=[])
        made = databases.backup.create_backup()
        source["x"].insert_one({"_id": 2})
        source["y"].insert_one({"_id": 3})
        source.drop_collection("seen")
        source["seen"].insert_one({"_id": 4})
        # What a restore that was killed would leave behind.
        source[f"{mongo_store.STAGE}dead.x"].insert_one({"_id": 5})
        databases.sql("CREATE TABLE other (n int)")
        with databases.server.connect() as user:
            report = databases.backup.restore_backup(
                made.id, choice=Choice(drop=True), safety_backup=False
            )
            with pytest.raises(psycopg.OperationalError):
                user.execute("SELECT 1")
        assert report.database == databases.server.database
        assert databases.sql("SELECT to_regclass('other'), count(*) FROM sounds") == [(None, 500)]
        assert sorted(source.list_collection_names()) == ["seen", "system.views", "x"]
        assert [each["_id"] for each in source["seen"].find()] == [1]
        assert "by n" in source["x"].index_information()

        # Of a part, only that part is replaced.
        source["y"].insert_one({"_id": 3})
        source["x"].insert_one({"_id": 2})
        databases.backup.restore_backup(
            made.id, choice=Choice(collections=("x",), drop=True), safety_backup=False
        )
        assert [each["_id"] for each in source["x"].find()] == [1]
        assert source["y"].count_documents({}) == 1
    with pytest.raises(InvalidInputError, match="cannot take the place of all"):
        databases.backup.restore_backup(made.id, choice=Choice(tables=("sounds",), drop=True))


def test_a_mongodb_that_is_lost_at_the_switch_is_told_and_the_same_command_ends_it(
    databases: Databases,
) -> None:
    databases.sql(ROWS)
    name = databases.settings.mongo.database
    with mongo_store.connect(databases.settings.mongo) as client:
        source = client[name]
        source["x"].insert_one({"_id": 1})
        made = databases.backup.create_backup()
        databases.sql("UPDATE sounds SET title = 'later'")
        source["x"].insert_one({"_id": 2})
        _, port = client.address or ("", 0)
        proxy = FaultyProxy(port)
        url = databases.settings.url(Store.MONGO)
        assert url is not None
        through = SecretStr(url.get_secret_value().replace(f":{port}", f":{proxy.port}"))
        settings = databases.settings.with_urls({Store.MONGO: through})
        settings = settings.model_copy(
            update={"mongo": settings.mongo.model_copy(update={"timeout_ms": 500})}
        )

        def lose(step: Step) -> None:
            proxy.refuse = step.phase == "switching"

        try:
            with pytest.raises(BackupError, match="same command again") as failed:
                DatabaseBackup(
                    BackupConfig(backup_dir=databases.folder), settings=settings
                ).restore_backup(
                    made.id,
                    choice=Choice(drop=True),
                    safety_backup=False,
                    control=Control(tell=lose),
                )
        finally:
            proxy.close()
        assert databases.sql("SELECT count(*) FROM sounds WHERE title LIKE 'kick%%'") == [(500,)]
        assert source["x"].count_documents({}) == 2
        (kept,) = databases.sql(
            "SELECT datname FROM pg_database WHERE datname LIKE current_database() || '_%%'"
        )
        assert kept[0] in str(failed.value)
        assert databases.sql("SELECT DISTINCT title FROM sounds", database=kept[0]) == [("later",)]

        databases.backup.restore_backup(made.id, choice=Choice(drop=True), safety_backup=False)
        assert source["x"].count_documents({}) == 1
        assert source.list_collection_names() == ["x"]
    assert databases.sql("SELECT 1 FROM pg_database WHERE datname = %s", kept[0]) == []


def test_the_stores_of_running_workers_are_not_replaced_unless_that_is_meant(
    databases: Databases, stack: Settings
) -> None:
    databases.sql(ROWS)
    made = databases.backup.create_backup()
    databases.sql("UPDATE sounds SET title = 'later'")
    url = stack.broker.url
    assert url is not None
    settings = databases.settings.model_copy(update={"broker": stack.broker})
    backup = DatabaseBackup(BackupConfig(backup_dir=databases.folder), settings=settings)
    signs = [heartbeat_key("console", "host", 1), heartbeat_key("audio", "host", 2)]
    with redis.Redis.from_url(url.get_secret_value()) as broker:
        for sign in signs:
            broker.set(sign, "{}", ex=60)
        try:
            with pytest.raises(ConflictError, match=r"workers run .*audio@host"):
                backup.restore_backup(made.id, choice=Choice(drop=True))
            # Its own name, and a half of it, are no other place.
            for named in ({"into": settings.mongo.database}, {"mongo_into": "elsewhere"}):
                with pytest.raises(ConflictError, match="workers run"):
                    backup.restore_backup(made.id, choice=Choice(drop=True), **named)
            assert databases.sql("SELECT DISTINCT title FROM sounds") == [("later",)]
            assert len(databases.backup.list_backups()) == 1, "no safety backup for nothing"
            backup.restore_backup(made.id, into=f"{databases.server.database}_copy")
            backup.restore_backup(
                made.id, choice=Choice(drop=True), beside_workers=True, safety_backup=False
            )
        finally:
            broker.delete(*signs)
    assert databases.sql("SELECT count(*) FROM sounds WHERE title LIKE 'kick%%'") == [(500,)]


def test_a_deferred_graph_is_missing_at_first_and_built_afterwards(databases: Databases) -> None:
    databases.sql(ROWS)
    databases.backup.create_backup()
    copy = f"{databases.server.database}_copy"
    graphs = "SELECT count(*) FROM pg_indexes WHERE indexname = 'near'"

    report = databases.backup.restore_backup(into=copy, choice=Choice(defer_graphs=True))
    assert databases.sql(graphs, database=copy) == [(0,)]
    assert databases.sql("SELECT count(*) FROM sounds", database=copy) == [(500,)]

    databases.backup.build_deferred(copy, report.deferred, Control())
    assert databases.sql(graphs, database=copy) == [(1,)]


@pytest.mark.parametrize("keys", [(), ("other",)])
def test_a_wrong_or_missing_key_fails_before_anything_is_dropped(
    databases: Databases, keys: tuple[str, ...]
) -> None:
    databases.sql(ROWS)
    made = with_keys(databases, "first").create_backup()
    assert made.encryption is not None

    with pytest.raises(SecretError, match="'first'"):
        with_keys(databases, *keys).restore_backup(made.id, choice=Choice(drop=True))

    assert databases.sql("SELECT count(*) FROM sounds") == [(500,)]
    stored = b"".join(path.read_bytes() for path in databases.folder.rglob("*") if path.is_file())
    assert b"kick 7" not in stored
    copy = f"{databases.server.database}_copy"
    with_keys(databases, "other", "first").restore_backup(made.id, into=copy)
    assert databases.sql("SELECT count(*) FROM sounds", database=copy) == [(500,)]


@pytest.mark.parametrize("kind", [BackupKind.LOGICAL, BackupKind.DUMP])
def test_a_damaged_object_fails_the_restore_and_every_level_and_is_named(
    databases: Databases, kind: BackupKind
) -> None:
    databases.sql(ROWS)
    made = databases.backup.create_backup(kind)
    largest = max(made.objects, key=lambda record: record.size_bytes)
    path = databases.folder / "data" / made.id / largest.name
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)

    for level in (Level.CHECKSUMS, Level.DECODED, Level.RESTORED):
        found = databases.backup.verify_backup(made.id, level=level)
        assert not found.ok
        assert largest.name in found.problems[0]
    with pytest.raises(BackupCorruptError, match=largest.name):
        databases.backup.restore_backup(made.id, into=f"{databases.server.database}_copy")
    # A bad backup is not the newest good one, whatever else there is.
    with pytest.raises(NotFoundError):
        databases.backup.restore_backup(into=f"{databases.server.database}_other")


def test_rows_that_are_missing_from_a_whole_object_are_found_by_the_restore(
    databases: Databases,
) -> None:
    databases.sql(ROWS)
    made = databases.backup.create_backup()
    assert made.postgres is not None
    (table,) = made.postgres.tables
    assert table.fingerprint is not None
    wrong = made.postgres.model_copy(
        update={
            "tables": (
                table.model_copy(
                    update={"fingerprint": table.fingerprint.model_copy(update={"digest": "1"})}
                ),
            )
        }
    )
    shutil.rmtree(databases.folder / "catalog" / made.id)
    with databases.backup._destination() as destination:
        destination.catalog.publish(made.model_copy(update={"postgres": wrong}))

    found = databases.backup.verify_backup(made.id, level=Level.RESTORED)

    assert found.problems == ("public.sounds has other rows than were backed up",)


def test_what_the_backup_does_not_have_is_refused(databases: Databases) -> None:
    databases.sql(ROWS)
    databases.backup.create_backup()
    copy = f"{databases.server.database}_copy"
    with pytest.raises(NotFoundError, match="no table nowhere"):
        databases.backup.restore_backup(into=copy, choice=Choice(tables=("nowhere",)))
    with pytest.raises(NotFoundError, match="no collection nowhere"):
        databases.backup.restore_backup(into=copy, choice=Choice(collections=("nowhere",)))
    with pytest.raises(NotFoundError, match="no backup 20200101"):
        databases.backup.restore_backup("20200101T000000Z-logical-00000000", into=copy)
    assert databases.sql("SELECT 1 FROM pg_database WHERE datname = %s", copy) == []


def test_a_role_that_exists_keeps_its_password(databases: Databases) -> None:
    role = f"{databases.server.database}_reader"
    databases.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'before'")
    stored = "SELECT rolpassword FROM pg_authid WHERE rolname = %s"
    try:
        databases.sql(f"{ROWS}; GRANT SELECT ON sounds TO {role}")
        made = databases.backup.create_backup()
        databases.sql(f"ALTER ROLE {role} PASSWORD 'after'")
        kept = databases.sql(stored, role)
        copy = f"{databases.server.database}_copy"
        databases.backup.restore_backup(made.id, into=copy)
        assert databases.sql(stored, role) == kept
        databases.sql(f"DROP DATABASE {copy}", database="postgres")
        databases.sql(f"REVOKE ALL ON sounds FROM {role}; DROP ROLE {role}")

        report = databases.backup.restore_backup(made.id, into=copy)

        assert report.roles_created == [role]
        assert databases.sql(stored, role) not in ([], kept)
        granted = "SELECT has_table_privilege(%s, 'sounds', 'SELECT')"
        assert databases.sql(granted, role, database=copy) == [(True,)]
    finally:
        copy = f"{databases.server.database}_copy"
        databases.sql(f"DROP DATABASE IF EXISTS {copy} WITH (FORCE)", database="postgres")
        databases.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


_OF_THE_DATABASE = """
SELECT ARRAY(SELECT unnest(setconfig) FROM pg_db_role_setting WHERE setdatabase = d.oid ORDER BY 1),
       has_database_privilege(%s, d.oid, 'CREATE'), shobj_description(d.oid, 'pg_database')
FROM pg_database d WHERE datname = current_database()
"""


@pytest.mark.parametrize("kind", [BackupKind.LOGICAL, BackupKind.DUMP])
def test_settings_rights_and_comment_of_the_database_itself_come_back(
    databases: Databases, kind: BackupKind
) -> None:
    name = databases.server.database
    role, copy = f"{name}_maker", f'{name} "copy"'
    quoted = copy.replace('"', '""')
    databases.sql(f"CREATE ROLE {role}")
    try:
        databases.sql(ROWS)
        databases.sql(
            f"ALTER DATABASE {name} SET work_mem = '9MB';"
            f"GRANT CREATE ON DATABASE {name} TO {role};"
            f"ALTER ROLE {role} IN DATABASE {name} SET search_path = 'a', 'b';"
            f"COMMENT ON DATABASE {name} IS 'sounds; and their words'"
        )
        expected = databases.sql(_OF_THE_DATABASE, role)
        assert expected == [(["search_path=a, b", "work_mem=9MB"], True, "sounds; and their words")]
        made = databases.backup.create_backup(kind)

        databases.backup.restore_backup(made.id, choice=Choice(drop=True), safety_backup=False)
        assert databases.sql(_OF_THE_DATABASE, role) == expected
        report = databases.backup.restore_backup(made.id, into=copy, mongo_into=f"{name}_copy")
        assert databases.sql(_OF_THE_DATABASE, role, database=copy) == expected
        assert report.warnings == []
    finally:
        databases.sql(f'DROP DATABASE IF EXISTS "{quoted}" WITH (FORCE)', database="postgres")
        databases.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("text", ["yesterday", "2026-11-22 03:14:07", "0/xyz", ""])
def test_a_target_that_could_be_misread_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="write for example"):
        parse_target(text)


def test_targets_are_read() -> None:
    assert parse_target("2026-11-22 03:14:07+02").moment is not None
    assert parse_target("0/16B3748").lsn == "0/16B3748"
    assert parse_target("end").is_end
