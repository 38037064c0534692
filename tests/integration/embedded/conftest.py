"""Rows in every store that keeps data, and the processes of a stack, for tests that kill it."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from pydantic import SecretStr
from pymongo import MongoClient

from samplemind.embedded.home import StackHome
from samplemind.embedded.process import ProcessRecord
from samplemind.endpoints import Store

Urls = Mapping[Store, SecretStr]

_OWNER = """
import sys, time
from pathlib import Path
from samplemind.embedded.stack import EmbeddedStack

EmbeddedStack(Path(sys.argv[1]), durable=sys.argv[2] == "durable").start()
print("started", flush=True)
time.sleep(600)
"""


class Rows:
    """One row in PostgreSQL, in MongoDB and in the broker, and a way to find them again."""

    @staticmethod
    def write(urls: Urls) -> None:
        with psycopg.connect(urls[Store.POSTGRES].get_secret_value()) as connection:
            connection.execute("CREATE TABLE kept (text text)")
            connection.execute("INSERT INTO kept VALUES ('row')")
        with MongoClient(urls[Store.MONGO].get_secret_value()) as client:
            client.kept.kept.insert_one({"text": "row"})
        with redis.Redis.from_url(urls[Store.BROKER].get_secret_value()) as client:
            client.lpush("kept", "row")

    @staticmethod
    def read(urls: Urls) -> list[object]:
        with psycopg.connect(urls[Store.POSTGRES].get_secret_value()) as connection:
            rows: list[object] = [row[0] for row in connection.execute("SELECT text FROM kept")]
        with MongoClient(urls[Store.MONGO].get_secret_value()) as client:
            rows += [document["text"] for document in client.kept.kept.find()]
        with redis.Redis.from_url(urls[Store.BROKER].get_secret_value()) as client:
            rows += [item.decode() for item in client.lrange("kept", 0, -1)]
        return rows


def processes_of(home: Path) -> list[ProcessRecord]:
    """Return every living process that the home has on record, with all that they started."""
    found: list[ProcessRecord] = []
    for managed in StackHome(home).processes():
        record = managed.record
        if record is not None and record.is_alive():
            children = psutil.Process(record.pid).children(recursive=True)
            family = [ProcessRecord.of(child.pid) for child in children]
            found += [record, *(child for child in family if child is not None)]
    return found


def kill_all(records: Sequence[ProcessRecord]) -> None:
    """Kill them at once, so that none can do anything more."""
    for record in records:
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGKILL)
    assert all(record.await_end(20) for record in records)


@pytest.fixture
def owner(home: Path) -> Iterator[subprocess.Popen[str]]:
    """Another program that owns a started stack in `home`, to be killed by the test."""
    with _owner_of(home, "throwaway") as program:
        yield program


@pytest.fixture
def durable_owner(home: Path) -> Iterator[subprocess.Popen[str]]:
    """The same, with PostgreSQL as it is in earnest; it starts slower."""
    with _owner_of(home, "durable") as program:
        yield program


@contextlib.contextmanager
def _owner_of(home: Path, durability: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _OWNER, str(home), durability]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "started\n"
        yield program
        program.kill()
