"""A pool of the migrated database, pools of one's own size, and databases of one's own."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import text

from samplemind.connections import postgres, query_timing
from samplemind.connections.postgres import ConnectionPool, init_connection_pool
from samplemind.connections.postgres_engine import create_unpooled_engine, parse_database_url
from samplemind.connections.resources import Connections
from samplemind.endpoints import Store
from samplemind.models.user import User
from samplemind.repositories.users import UserRepository
from samplemind.settings import Settings

MakePool = Callable[..., ConnectionPool]
Until = Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]
LogEntries = list[MutableMapping[str, Any]]


@pytest.fixture
def pool(connections: Connections) -> ConnectionPool:
    return connections.postgres


@pytest.fixture
async def make_pool(connections: Connections) -> AsyncIterator[MakePool]:
    url = connections.settings.postgres.url
    assert url is not None
    async with AsyncExitStack() as closing:

        def make(*sizes: int, **options: Any) -> ConnectionPool:
            made = init_connection_pool(url, *sizes, **options)
            closing.push_async_callback(made.aclose)
            return made

        yield make


@pytest.fixture
async def owner(pool: ConnectionPool) -> User:
    async with pool.session() as session:
        return await UserRepository(session).get_or_create_owner("owner@example.org")


@pytest.fixture
async def empty_database(stack: Settings) -> AsyncIterator[Settings]:
    """Settings whose PostgreSQL database is new, and is dropped afterwards."""
    assert stack.postgres.url is not None
    name = f"samplemind_{secrets.token_hex(6)}"
    server = create_unpooled_engine(stack.postgres.url).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    url = parse_database_url(stack.postgres.url).set(database=name)
    async with server.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield stack.with_urls(
            {Store.POSTGRES: SecretStr(url.render_as_string(hide_password=False))}
        )
    finally:
        async with server.connect() as connection:
            await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        await server.dispose()


@pytest.fixture
def until() -> Until:
    """Wait until the condition holds, for ten seconds at most."""

    async def wait(condition: Callable[[], Awaitable[object]]) -> None:
        async with asyncio.timeout(10):
            while not await condition():  # noqa: ASYNC110 - the server sends no event for it
                await asyncio.sleep(0.005)

    return wait


@pytest.fixture
def log_entries(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogEntries]:
    """What the pool logs, whichever configuration an earlier test left behind."""
    for module in (postgres, query_timing):
        monkeypatch.setattr(module, "_log", structlog.get_logger())
    with structlog.testing.capture_logs() as entries:
        yield entries
