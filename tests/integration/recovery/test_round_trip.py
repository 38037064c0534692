"""A database with every kind of thing in it comes back equal, row by row."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import Decimal128, Int64
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pydantic import SecretStr
from pymongo import MongoClient
from pymongo.database import Database

from samplemind.backup import mongo as mongo_store
from samplemind.backup.database_backup import BackupConfig, DatabaseBackup
from samplemind.backup.manifest import BackupKind
from samplemind.backup.restore import Choice
from samplemind.backup.verification import Level
from samplemind.endpoints import Store
from tests.integration.recovery.conftest import Databases

EVERYTHING = r"""
CREATE EXTENSION vector;
CREATE EXTENSION pg_trgm;
CREATE EXTENSION btree_gin;
CREATE SCHEMA "odd.schema";
CREATE TYPE mood AS ENUM ('dark', 'bright');
CREATE DOMAIN tempo AS real CHECK (VALUE > 0);
CREATE TYPE place AS (x int, label text);
CREATE TABLE owners (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text UNIQUE NOT NULL
);
CREATE TABLE everything (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), owner bigint REFERENCES owners, n smallint,
    big bigint, amount numeric(20, 8), ratio double precision, single real, yes boolean, name text,
    code varchar(20), pad char(8), raw bytea, data jsonb, plain json, tags text[], matrix int[][],
    words tsvector, query tsquery, embedding vector(8), half halfvec(8), sparse sparsevec(100),
    at timestamptz, local timestamp, day date, clock time, span interval, address inet, net cidr,
    mac macaddr, bits bit varying(64), spot point, span_of int4range, many int4multirange,
    feeling mood, speed tempo, spot_of place,
    doubled bigint GENERATED ALWAYS AS (big * 2) STORED
);
CREATE INDEX everything_embedding ON everything USING hnsw (embedding vector_l2_ops);
CREATE INDEX everything_words ON everything USING gin (words);
CREATE INDEX everything_name ON everything USING gin (name gin_trgm_ops);
CREATE TABLE parts (at date NOT NULL, n int) PARTITION BY RANGE (at);
CREATE TABLE parts_2025 PARTITION OF parts FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE parts_rest PARTITION OF parts DEFAULT;
CREATE INDEX ON parts (n);
CREATE TABLE "odd.schema"."Ta ble/%ü" ("Col umn" text, "select" int);
CREATE TABLE nothing ();
CREATE TABLE parent (a int);
CREATE TABLE child (b int) INHERITS (parent);
CREATE SEQUENCE lonely START 7 INCREMENT 3;
CREATE VIEW seen AS SELECT name, doubled FROM everything;
CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM everything;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'a restore must not fire triggers'; END $$;
INSERT INTO owners (email) SELECT 'user' || i || '@example.org' FROM generate_series(1, 50) i;
INSERT INTO everything SELECT
    gen_random_uuid(), 1 + i % 50, i % 100, i * 1e12::bigint, i / 7.0, random(), random(),
    i % 2 = 0,
    'Grüße 🎹 ' || i || E'\n\t\\ "quoted"', 'c' || i, 'p', decode(md5(i::text), 'hex'),
    jsonb_build_object('k', i, 'ü', E'\n'), '{"b":1, "a":2}', ARRAY['x', NULL, 'ä,"'],
    ARRAY[[1, 2], [3, i]], to_tsvector('english', 'dark kicks ' || i), to_tsquery('dark & kick'),
    ARRAY[i, 1, 2, 3, 4, 5, 6, random()]::vector, ARRAY[i, 1, 2, 3, 4, 5, 6, 7]::halfvec,
    '{1:1,50:2}/100', now() + i * interval '1 hour', now(), current_date + i, '12:34:56.789',
    i * interval '1 month 2 days 3.5 seconds', '10.0.0.1', '10.1.0.0/16', '08:00:2b:01:02:03',
    B'10101', point(i, -i), int4range(i, i + 5), '{[1,3), [7,9)}', 'dark', 120.5,
    ROW(i, 'l,"a"')::place
FROM generate_series(1, 600) i;
INSERT INTO everything (id) VALUES (gen_random_uuid());
INSERT INTO everything (name, raw)
    VALUES (repeat('long ', 400000), decode(repeat('00ff', 300000), 'hex'));
INSERT INTO parts SELECT date '2025-01-01' + i, i FROM generate_series(0, 800) i;
INSERT INTO "odd.schema"."Ta ble/%ü" VALUES ('\.', 1), ('\N', 2), (NULL, 3), ('', 4);
INSERT INTO nothing DEFAULT VALUES;
INSERT INTO nothing DEFAULT VALUES;
INSERT INTO parent VALUES (1);
INSERT INTO child VALUES (2, 3);
SELECT nextval('lonely'), nextval('lonely');
REFRESH MATERIALIZED VIEW counted;
SELECT lo_from_bytea(4711, 'a large object');
CREATE TRIGGER touched BEFORE INSERT ON everything FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE owners ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON owners USING (email = current_user);
"""

ROWS = """
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'v') AND n.nspname IN ('public', 'odd.schema') ORDER BY 1
"""
DEFINITIONS = """
SELECT 'index', indexdef FROM pg_indexes WHERE schemaname IN ('public', 'odd.schema')
UNION ALL SELECT 'constraint', conrelid::regclass || pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid <> 0
UNION ALL SELECT 'trigger', pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'policy', policyname FROM pg_policies
UNION ALL SELECT 'extension', extname || extversion FROM pg_extension
UNION ALL SELECT 'sequence', sequencename || coalesce(last_value, -1) FROM pg_sequences
UNION ALL SELECT 'large object', encode(lo_get(oid), 'hex') FROM pg_largeobject_metadata
ORDER BY 1, 2
"""


def contents(databases: Databases, database: str | None = None) -> dict[str, list[tuple]]:
    """Everything that a database holds, as text."""
    found = {
        name: databases.sql(f"SELECT t::text FROM {name} t ORDER BY 1", database=database)  # noqa: S608
        for (name,) in databases.sql(ROWS, database=database)
    }
    assert len(found) == 10
    assert sum(len(rows) for rows in found.values()) > 1400
    return {**found, "definitions": databases.sql(DEFINITIONS, database=database)}


@pytest.mark.parametrize("kind", [BackupKind.LOGICAL, BackupKind.DUMP])
def test_every_type_and_object_comes_back_equal(databases: Databases, kind: BackupKind) -> None:
    databases.sql(EVERYTHING)
    copy = f"{databases.server.database}_copy"

    made = databases.backup.create_backup(kind)
    report = databases.backup.restore_backup(made.id, into=copy)

    assert contents(databases, copy) == contents(databases)
    assert made.postgres is not None
    assert report.rows == sum(table.rows for table in made.postgres.tables)
    assert databases.sql("SELECT count(*) FROM nothing", database=copy) == [(2,)]


def test_a_table_in_many_ranges_comes_back_once(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samplemind.backup.collect.RANGE_BYTES", 64 * 1024)
    databases.sql(
        "CREATE TABLE wide (id int PRIMARY KEY, t text);"
        "INSERT INTO wide SELECT i, repeat(md5(i::text), 5) FROM generate_series(1, 20000) i;"
        "DELETE FROM wide WHERE id % 3 = 0"
    )

    made = databases.backup.create_backup()
    assert made.postgres is not None
    assert len(made.postgres.tables[0].segments) > 20
    copy = f"{databases.server.database}_copy"
    databases.backup.restore_backup(made.id, into=copy)

    everything = "SELECT * FROM wide ORDER BY id"
    assert databases.sql(everything, database=copy) == databases.sql(everything)


def test_documents_come_back_byte_by_byte_with_indexes_views_and_validators(
    databases: Databases,
) -> None:
    with mongo_store.connect(databases.settings.mongo) as client:
        source = client[databases.settings.mongo.database]
        source.create_collection("checked", validator={"n": {"$type": "int"}})
        source["checked"].insert_many({"n": i, "s": "x" * i} for i in range(2000))
        source["checked"].create_index([("n", 1)], unique=True, name="by n")
        source["checked"].create_index([("s", "text")], default_language="none")
        source.create_collection("seen", viewOn="checked", pipeline=[{"$match": {"n": {"$gt": 5}}}])
        odd = {
            "_id": 1, "i": Int64(2**60), "d": Decimal128("1.10"), "b": b"\0\1",
            "t": Timestamp(5, 6), "deep": [{"ü": None}, [1, 2.5]],
        }  # fmt: skip
        source["odd name/%"].insert_one(odd)
        made = databases.backup.create_backup()
        source["checked"].delete_many({})

        copy = f"{databases.server.database}_copy"
        report = databases.backup.restore_backup(made.id, into=copy)

        restored = client[copy]
        assert report.documents == 2001
        assert restored["checked"].count_documents({}) == 2000
        assert restored["seen"].count_documents({}) == 1994
        assert restored["odd name/%"].find_one() == odd
        assert restored["checked"].index_information() == source["checked"].index_information()
        assert restored["checked"].options() == source["checked"].options()


def describe(source: "Database[dict[str, Any]]") -> dict[str, Any]:
    """Every collection's kind and options, its indexes and its documents as bytes."""
    found: dict[str, Any] = {}
    for info in source.list_collections():
        name = info["name"]
        if name.startswith("system."):
            continue
        raw = source[name].with_options(codec_options=CodecOptions(RawBSONDocument))
        found[name] = (
            info["type"],
            info["options"],
            [] if info["type"] == "view" else [dict(each) for each in source[name].list_indexes()],
            [bytes(each.raw) for each in raw.find()],
        )
    return found


@pytest.mark.parametrize("drop", [False, True])
def test_every_kind_of_collection_comes_back_with_its_options(
    databases: Databases, drop: bool
) -> None:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    with mongo_store.connect(databases.settings.mongo) as client:
        source = client[databases.settings.mongo.database]
        source.create_collection("capped", capped=True, size=8192, max=20)
        source["capped"].insert_many({"_id": n} for n in range(50))
        source.create_collection("sorted", collation={"locale": "de", "strength": 1})
        source["sorted"].insert_many({"_id": n, "s": word} for n, word in enumerate("aÄbB"))
        source["sorted"].create_index(
            "s", unique=False, partialFilterExpression={"_id": {"$gt": 0}}, name="part"
        )
        source["passing"].insert_one({"_id": 1, "at": at})
        source["passing"].create_index("at", expireAfterSeconds=10**9, name="ttl")
        source.create_collection("checked", validator={"n": {"$gt": 0}}, validationAction="warn")
        source["checked"].insert_one({"n": -1})
        source.create_collection("clustered", clusteredIndex={"key": {"_id": 1}, "unique": True})
        source["clustered"].insert_many({"_id": n} for n in (3, 1, 2))
        source.create_collection(
            "measured",
            timeseries={"timeField": "at", "metaField": "of", "granularity": "minutes"},
            expireAfterSeconds=10**9,
        )
        source["measured"].insert_many(
            {"at": at + timedelta(seconds=7 * n), "of": n % 3, "n": n} for n in range(500)
        )
        source["measured"].create_index([("of", 1), ("at", -1)], name="mine")
        source.create_collection("seen", viewOn="measured", pipeline=[{"$match": {"of": 1}}])
        source.create_collection("seen_twice", viewOn="seen", pipeline=[{"$limit": 5}])
        expected = describe(source)
        made = databases.backup.create_backup()
        name = databases.settings.mongo.database if drop else f"{databases.server.database}_copy"
        if drop:
            source["measured"].insert_one({"at": at, "of": 1, "n": -1})
            source["capped"].insert_one({"_id": 77})

        databases.backup.restore_backup(
            made.id,
            into=None if drop else name,
            choice=Choice(drop=drop),
            safety_backup=False,
        )

        assert describe(client[name]) == expected
        assert client[name]["seen_twice"].count_documents({}) == 5
    assert databases.backup.verify_backup(made.id, level=Level.RESTORED).problems == ()


def test_users_and_roles_of_the_database_come_back_with_their_passwords(
    databases: Databases,
) -> None:
    settings = databases.settings
    name = settings.mongo.database
    with mongo_store.connect(settings.mongo) as client:
        client[name]["x"].insert_one({"_id": 1})
        privileges = [{"resource": {"db": name, "collection": "x"}, "actions": ["find"]}]
        client[name].command("createRole", "reader", privileges=privileges, roles=[])
        client[name].command("createUser", "ada", pwd="of ada", roles=["reader"])
        client[name].command("createUser", "eve", pwd="of eve", roles=["read"])
        try:
            made = databases.backup.create_backup()
            assert made.remarks == ()
            client[name].command("dropUser", "ada")
            client[name].command("dropRole", "reader")
            client[name].command("updateUser", "eve", pwd="changed")

            report = databases.backup.restore_backup(
                made.id, choice=Choice(drop=True), safety_backup=False
            )

            assert report.users_created == [f"{name}.ada"]
            for user, password in (("ada", "of ada"), ("eve", "changed")):
                login = {"username": user, "password": password, "authSource": name}
                host, port = client.address or ("", 0)
                with MongoClient(host, port, directConnection=True, **login) as other:
                    assert other[name]["x"].find_one() == {"_id": 1}
            assert [n for n in client.admin.list_collection_names() if "samplemind" in n] == []

            # An account that may not read them makes a backup that says so.
            client.admin.command(
                "createUser", name, pwd="p", roles=[{"role": "readWrite", "db": name}]
            )
            url = f"mongodb://{name}:p@{host}:{port}/?authSource=admin&directConnection=true"
            less = settings.with_urls({Store.MONGO: SecretStr(url)})
            backup = DatabaseBackup(BackupConfig(backup_dir=databases.folder), settings=less)
            made = backup.create_backup()
            assert "users and roles are not in it" in made.remarks[0]
            assert made.mongo is not None
            assert made.mongo.accounts_object is None
        finally:
            client[name].command("dropAllUsersFromDatabase")
            client[name].command("dropAllRolesFromDatabase")
            client.admin["system.users"].delete_one({"_id": f"admin.{name}"})


@pytest.mark.parametrize("level", [Level.DECODED, Level.RESTORED])
def test_a_good_backup_is_good_at_every_level(databases: Databases, level: Level) -> None:
    databases.sql(EVERYTHING)
    made = databases.backup.create_backup()

    found = databases.backup.verify_backup(made.id, level=level)

    assert found.problems == ()
    (entry,) = databases.backup.list_backups()
    assert entry.verified is not None
    assert entry.verified.level == level


def test_chosen_tables_come_with_their_rows_and_without_the_others(databases: Databases) -> None:
    databases.sql(EVERYTHING)
    made = databases.backup.create_backup()
    copy = f"{databases.server.database}_copy"

    databases.backup.restore_backup(
        made.id, into=copy, choice=Choice(tables=("everything", "odd.schema.Ta ble/%ü"))
    )

    assert databases.sql("SELECT count(*) FROM everything", database=copy) == [(602,)]
    assert databases.sql("SELECT count(*) FROM owners", database=copy) == [(0,)]
