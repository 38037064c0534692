"""The real servers that tests run against.

One embedded stack serves a whole run, in a home of its own under the temporary directory, and is
stopped at the end. A run that was killed leaves its stack behind: the next run stops and removes
it, known by the pid in the home's name.
"""

import asyncio
import fcntl
import logging
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from samplemind.settings import Settings, load_settings

# The stores' drivers are imported by the fixtures that need them: a run of unit tests alone is
# over sooner than their import.
if TYPE_CHECKING:
    from samplemind.connections.resources import Connections

_PREFIX = "samplemind-tests-"

# Rules and triggers stand aside (audit logs refuse deletion); empty tables are left alone, because
# TRUNCATE makes a new file for each.
_EMPTY_TABLES = """
DO $$
DECLARE
    place regclass;
    filled boolean;
BEGIN
    SET LOCAL session_replication_role = replica;
    FOR place IN
        SELECT oid FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
          AND NOT relispartition AND relname <> 'alembic_version'
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', place) INTO filled;
        IF filled THEN
            EXECUTE format('TRUNCATE %s RESTART IDENTITY CASCADE', place);
        END IF;
    END LOOP;
END $$
"""


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_operator() -> Iterator[None]:
    """Tests must not read, let alone write, the stores that a shell's variables name."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.upper().startswith("SAMPLEMIND_")]:
            patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command that a test runs sends logs to that test's stderr, which closes with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def stack(_no_settings_of_the_operator: None) -> Iterator[Settings]:
    """Settings with the URLs of all four stores, real and empty at first."""
    from samplemind.embedded.stack import EmbeddedStack

    remove_stacks_of_killed_runs(Path(tempfile.gettempdir()))
    with temporary_home() as home, EmbeddedStack(home, durable=False) as embedded:
        yield load_settings().model_copy(update={"home": home}).with_urls(embedded.start())


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory for a stack of the test's own; whatever runs in it is stopped at the end."""
    with temporary_home() as home:
        yield home


@pytest.fixture(scope="session")
def migrated(stack: Settings) -> Settings:
    """The same, with PostgreSQL's tables and MongoDB's indexes."""
    from samplemind.connections.resources import Connections
    from samplemind.documents.indexes import ensure_indexes
    from samplemind.migrate import migrate_postgres

    async def migrate() -> None:
        await migrate_postgres(stack)
        async with Connections(stack) as connections:
            await ensure_indexes(await connections.documents())

    asyncio.run(migrate())
    return stack


@pytest.fixture
async def connections(migrated: Settings) -> "AsyncIterator[Connections]":
    """Connections to stores in which every row, document and key is gone."""
    from samplemind.connections.resources import Connections

    async with Connections(migrated) as opened:
        await empty_stores(opened)
        yield opened


async def empty_stores(connections: "Connections") -> None:
    from sqlalchemy import text

    async with connections.postgres.session() as session:
        await session.execute(text(_EMPTY_TABLES))
    documents = await connections.documents()
    for name in await documents.list_collection_names():
        await documents[name].delete_many({})
    await connections.broker.flushdb()
    await connections.cache.flushdb()


@contextmanager
def temporary_home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    # As root, PostgreSQL runs as another account, which must get in.
    home.chmod(0o711)
    try:
        yield home
    finally:
        _erase(home)


def _erase(home: Path) -> None:
    from samplemind.embedded.stack import EmbeddedStack

    EmbeddedStack(home).stop()
    postgres = home / "data" / "postgres"
    if postgres.is_symlink():  # chosen because the account could not get in
        shutil.rmtree(postgres.readlink().parent)
    shutil.rmtree(home)


def remove_stacks_of_killed_runs(directory: Path) -> None:
    """Stop and remove what killed runs left in the directory; the processes of a run take turns."""
    with (directory / f"{_PREFIX}{os.geteuid()}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        for home in directory.glob(f"{_PREFIX}*"):
            run = re.match(rf"{_PREFIX}(\d+)-", home.name)
            if run and not psutil.pid_exists(int(run[1])) and home.stat().st_uid == os.geteuid():
                _erase(home)
