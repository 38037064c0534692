"""Databases of a test's own on the run's servers, and backups of them in a folder of its own."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from samplemind.backup import mongo as mongo_store
from samplemind.backup.database_backup import BackupConfig, DatabaseBackup
from samplemind.backup.postgres_tools import Server
from samplemind.connections.postgres_engine import parse_database_url
from samplemind.endpoints import Store
from samplemind.settings import BrokerSettings, Settings


@dataclass
class Databases:
    """A PostgreSQL and a MongoDB database, both new, and where their backups go."""

    settings: Settings
    backup: DatabaseBackup
    folder: Path

    @property
    def server(self) -> Server:
        assert self.settings.postgres.url is not None
        return Server(self.settings.postgres.url)

    def sql(self, statement: str, *arguments: object, database: str | None = None) -> list[tuple]:
        server = self.server.with_database(database) if database else self.server
        with server.connect() as connection:
            done = connection.execute(statement, arguments or None)
            return done.fetchall() if done.description else []

    def command(self, *arguments: str, broker: BrokerSettings, home: Path | None = None) -> str:
        """Run `samplemind` over these databases and return what it prints; it must succeed."""
        settings = self.settings.model_copy(update={"broker": broker})
        urls = {f"SAMPLEMIND_{store.name}_URL": settings.url(store) for store in Store}
        environment = {
            **os.environ,
            **{name: url.get_secret_value() for name, url in urls.items() if url is not None},
            "SAMPLEMIND_MONGO_DATABASE": settings.mongo.database,
            "SAMPLEMIND_STORAGE_PATH": str(self.folder),
            "SAMPLEMIND_HOME": str(home or settings.home),
        }
        ended = subprocess.run(
            [sys.executable, "-m", "samplemind", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def names(self) -> list[str]:
        """Every object in the store."""
        return sorted(
            str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()
        )


@pytest.fixture
def databases(stack: Settings, tmp_path: Path) -> Iterator[Databases]:
    assert stack.postgres.url is not None
    name = f"samplemind_{secrets.token_hex(6)}"
    main = Server(stack.postgres.url)
    with main.connect() as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = parse_database_url(stack.postgres.url).set(database=name, drivername="postgresql")
    settings = stack.model_copy(
        update={
            "mongo": stack.mongo.model_copy(update={"database": name}),
            # Workers of other tests have left their signs of life there.
            "broker": stack.broker.model_copy(update={"url": None}),
            "home": tmp_path,
        }
    ).with_urls({Store.POSTGRES: SecretStr(url.render_as_string(hide_password=False))})
    folder = tmp_path / "store"
    try:
        yield Databases(
            settings, DatabaseBackup(BackupConfig(backup_dir=folder), settings=settings), folder
        )
    finally:
        with main.connect() as connection:
            rows = connection.execute(
                "SELECT datname FROM pg_database WHERE datname LIKE %s", (f"{name}%",)
            ).fetchall()
            for (each,) in rows:
                connection.execute(f"DROP DATABASE {each} WITH (FORCE)")
        with mongo_store.connect(settings.mongo) as client:
            for each in client.list_database_names():
                if each.startswith(name):
                    client.drop_database(each)
