"""What `samplemind migrate --check` and `--wait` say beside a deployer."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from samplemind.connections.postgres_engine import create_unpooled_engine
from samplemind.endpoints import Store
from samplemind.migrate import lacks_revisions, migrate_postgres, pending_revisions
from samplemind.settings import Settings


def start(settings: Settings, *arguments: str) -> subprocess.Popen[str]:
    urls = {f"SAMPLEMIND_{store.name}_URL": settings.url(store) for store in Store}
    return subprocess.Popen(
        [sys.executable, "-m", "samplemind", "migrate", *arguments],
        env={
            **os.environ,
            **{name: url.get_secret_value() for name, url in urls.items() if url is not None},
            "SAMPLEMIND_MONGO_DATABASE": settings.mongo.database,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def empty_stores(empty_database: Settings) -> Iterator[Settings]:
    """Settings of a PostgreSQL database and a MongoDB database that hold nothing."""
    from pymongo import MongoClient

    assert empty_database.postgres.url is not None
    assert empty_database.mongo.url is not None
    name = empty_database.postgres.url.get_secret_value().rpartition("/")[2].partition("?")[0]
    mongo = empty_database.mongo.model_copy(update={"database": name})
    yield empty_database.model_copy(update={"mongo": mongo})
    with MongoClient[dict[str, object]](empty_database.mongo.url.get_secret_value()) as client:
        client.drop_database(name)


def test_whoever_waits_goes_on_once_another_has_migrated(empty_stores: Settings) -> None:
    looking = start(empty_stores, "--check", "--json")
    lacking, _ = looking.communicate(timeout=60)
    assert looking.returncode == 1
    assert json.loads(lacking)["revisions_lacking"][0] == "001"
    assert "batch_items.stalled_items" in json.loads(lacking)["indexes_lacking"]

    waiting = start(empty_stores, "--wait", "60")
    assert waiting.stderr is not None
    assert "Waiting for" in waiting.stderr.readline()
    deployer = start(empty_stores)
    assert deployer.wait(60) == 0
    assert waiting.wait(60) == 0

    assert start(empty_stores, "--check").wait(60) == 0


def test_whoever_waits_for_a_store_that_never_answers_says_so(empty_database: Settings) -> None:
    nowhere = {Store.POSTGRES: SecretStr("postgresql://nobody@127.0.0.1:1/none")}
    waiting = start(empty_database.with_urls(nowhere), "--wait", "1")
    _, said = waiting.communicate(timeout=60)
    assert waiting.returncode == 1
    assert said.splitlines()[0].startswith("Waiting: ")
    assert said.splitlines()[-1].startswith("Error: ")


async def test_a_database_of_a_newer_installation_lacks_nothing(empty_database: Settings) -> None:
    assert await lacks_revisions(empty_database) == await pending_revisions(empty_database) != []
    await migrate_postgres(empty_database)
    assert empty_database.postgres.url is not None
    engine = create_unpooled_engine(empty_database.postgres.url)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '999'"))
    await engine.dispose()
    assert await lacks_revisions(empty_database) == []
