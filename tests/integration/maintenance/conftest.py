"""A scratch schema of tables in which each illness is made on purpose."""

from collections.abc import AsyncIterator, Awaitable, Callable

import psycopg
import pytest
from psycopg.rows import dict_row

from samplemind.maintenance.query_optimizer import QueryOptimizer
from samplemind.maintenance.session import Session
from samplemind.settings import MaintenanceSettings, Settings

MakeTable = Callable[..., Awaitable[None]]


@pytest.fixture
async def session(migrated: Settings) -> AsyncIterator[Session]:
    """A connection of the test's own; tables that it makes as `ill_…` are dropped at the end."""
    assert migrated.postgres.url is not None
    connection = await psycopg.AsyncConnection.connect(
        migrated.postgres.url.get_secret_value(), autocommit=True, row_factory=dict_row
    )
    async with connection:
        yield connection
        found = await connection.execute(
            "SELECT relname FROM pg_class WHERE relname LIKE 'ill\\_%' AND relkind IN ('r', 'p')"
        )
        for row in await found.fetchall():
            await connection.execute(f'DROP TABLE IF EXISTS "{row["relname"]}" CASCADE')


@pytest.fixture
def patient(migrated: Settings) -> Settings:
    """Settings whose upkeep does not wait long for locks."""
    return migrated.model_copy(update={"maintenance": MaintenanceSettings(lock_timeout_ms=200)})


@pytest.fixture
def optimizer(migrated: Settings) -> QueryOptimizer:
    return QueryOptimizer(migrated)


@pytest.fixture
async def songs(session: Session) -> None:
    """20,000 rows: 1,000 artists, 50 genres that hang on the artist, words that differ."""
    await session.execute(
        "CREATE TABLE ill_songs (id int PRIMARY KEY, artist int, genre int, year int, title text)"
    )
    await session.execute(
        "INSERT INTO ill_songs SELECT i, i % 1000, (i % 1000) % 50, 1950 + i % 75, "
        "md5(i::text) || repeat('x', 60) FROM generate_series(1, 20000) AS i"
    )
    # Counted before VACUUM counts: afterwards the rows would be added a second time.
    await session.execute("SELECT pg_stat_force_next_flush()")
    await session.execute("VACUUM (ANALYZE) ill_songs")
