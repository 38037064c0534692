"""Bringing PostgreSQL to the newest revision.

Invariant: the migrations that run are those of this very installation: the `migrations` folder
that lies beside the package, in a checkout and in an installed wheel alike.
"""

import asyncio
import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from samplemind.connections.postgres_engine import create_unpooled_engine
from samplemind.errors import ConflictError, NewerDatabaseError, StackNotRunningError
from samplemind.log import get_logger
from samplemind.settings import Settings

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"

# Alembic keeps the running migration in module-level names, so a process runs one at a time.
_one_at_a_time = threading.Lock()

_log = get_logger(__name__)


async def migrate_postgres(settings: Settings) -> str:
    """Run every pending revision, one deployer at a time, and return the newest one's name.

    Repeating it is harmless. Each revision is a transaction of its own: after a failure the
    database is at the last one that was done.

    Raises:
        StoreUnavailableError: the server did not answer.
        TransientError: a lock was not free in time, or another deployer took too long.
        NewerDatabaseError: the database is at a revision that this installation does not know.
    """
    head = _newest()
    pending = await pending_revisions(settings)
    if pending:
        # Alembic is synchronous, and its env.py runs an event loop of its own.
        await asyncio.to_thread(_upgrade, settings)
        _log.info("postgres.migrated", revision=head, pending=pending)
    return head


async def pending_revisions(settings: Settings) -> list[str]:
    """Return the revisions that the database lacks, oldest first.

    Raises:
        StackNotRunningError: the settings have no URL for PostgreSQL.
        StoreUnavailableError: the server did not answer.
        NewerDatabaseError: the database is at a revision that this installation does not know.
    """
    if settings.postgres.url is None:
        message = "no address for PostgreSQL: set SAMPLEMIND_POSTGRES_URL, or `samplemind up`"
        raise StackNotRunningError(message)
    engine = create_unpooled_engine(
        settings.postgres.url,
        connect_timeout_s=settings.postgres.connect_timeout_s,
        application_name="samplemind-migrate",
    )
    try:
        async with engine.connect() as connection:
            current = await connection.run_sync(_current)
    finally:
        await engine.dispose()
    return _after(current)


async def lacks_revisions(settings: Settings) -> list[str]:
    """Return the revisions that this installation needs and the database lacks, oldest first.

    Of a database that a newer installation has migrated none is lacking: revisions follow each
    other in one line, and a release may run on the tables of the next one.

    Raises:
        StackNotRunningError: the settings have no URL for PostgreSQL.
        StoreUnavailableError: the server did not answer.
    """
    try:
        return await pending_revisions(settings)
    except NewerDatabaseError:
        return []


def alembic_config(settings: Settings) -> Config:
    """Return Alembic's configuration for these settings, without any file."""
    config = Config()
    # A percent sign would start an interpolation.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["settings"] = settings
    return config


def _upgrade(settings: Settings) -> None:
    with _one_at_a_time:
        command.upgrade(alembic_config(settings), "head")


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _newest() -> str:
    head = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    if head is None:
        message = f"no migrations in {MIGRATIONS}: the installation is not whole"
        raise ConflictError(message)
    return head


def _after(current: str | None) -> list[str]:
    newest_first = [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()]
    if current is None:
        return newest_first[::-1]
    if current not in newest_first:
        message = (
            f"the database is at revision {current}, which this installation does not know: "
            "a newer one has migrated it"
        )
        raise NewerDatabaseError(message)
    return newest_first[: newest_first.index(current)][::-1]
