"""How Alembic reaches the database: online over an asynchronous connection, or offline as SQL.

Invariant: one deployer migrates at a time, each revision is one transaction, and none waits
longer for a table's lock than the settings allow, so that a migration cannot stop a service by
queueing in front of it. The URL comes from the settings: those that `samplemind.migrate` hands
over, or else the environment's. Every module in `samplemind.models` is found by its being there.
"""

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.schema import SchemaItem

from samplemind.connections.postgres_engine import create_unpooled_engine
from samplemind.errors import StackNotRunningError
from samplemind.log import configure_logging
from samplemind.migration_lock import hold_migration_lock
from samplemind.models.base import Base
from samplemind.settings import Settings, get_settings

# Where autogenerate finds what the models have and the database lacks.
TARGET = Base.metadata

_PARTITIONS = text("SELECT relname FROM pg_class WHERE relispartition AND relkind IN ('r', 'p')")


def migrate_offline() -> None:
    """Print the SQL; neither a server nor a URL is needed."""
    context.configure(
        dialect_name="postgresql",
        target_metadata=TARGET,
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def migrate_online(settings: Settings) -> None:
    """Run what is pending while no other deployer does."""
    url = settings.postgres.url
    if url is None:
        message = "no address for PostgreSQL: set SAMPLEMIND_POSTGRES_URL, or `samplemind up`"
        raise StackNotRunningError(message)
    engine = create_unpooled_engine(
        url,
        connect_timeout_s=settings.postgres.connect_timeout_s,
        statement_timeout_ms=settings.postgres.statement_timeout_ms,
        application_name="samplemind-migrate",
    )
    try:
        async with engine.connect() as connection, hold_migration_lock(connection):
            # set_config, because SET takes no parameter. A revision that knows to need longer
            # than the limits says so itself: SET LOCAL statement_timeout.
            await connection.execute(
                text("SELECT set_config('lock_timeout', :limit, false)"),
                {"limit": f"{settings.postgres.lock_timeout_ms}ms"},
            )
            await connection.commit()
            await connection.run_sync(_migrate)
    finally:
        await engine.dispose()


def _migrate(connection: Connection) -> None:
    partitions = frozenset(connection.scalars(_PARTITIONS))
    connection.commit()

    def is_ours(_object: SchemaItem, name: str | None, kind: str, *_: object) -> bool:
        # A partition is its parent's matter, and months' partitions come and go.
        return kind != "table" or name not in partitions

    context.configure(
        connection=connection,
        target_metadata=TARGET,
        include_object=is_ours,
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def _settings() -> Settings:
    given: Settings | None = context.config.attributes.get("settings")
    if given is not None:
        return given
    settings = get_settings()
    configure_logging(settings.log)
    return settings


if context.is_offline_mode():
    migrate_offline()
else:
    asyncio.run(migrate_online(_settings()))
