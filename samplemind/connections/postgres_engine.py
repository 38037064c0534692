"""How PostgreSQL is reached: the URL, what each connection is told, and engines without a pool.

Invariant: every connection is in UTC, ends statements at its limit, and notices a peer that
vanished. A URL that cannot be read is never repeated in a message: it holds a password.
"""

from pydantic import SecretStr
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from samplemind.connections.postgres_errors import translate_errors
from samplemind.errors import SettingsError

# A peer that vanished without a word (a host that lost power) is noticed after about this long.
_PEER_TIMEOUT_MS = 30_000


def create_unpooled_engine(
    database_url: str | SecretStr,
    *,
    connect_timeout_s: int = 5,
    statement_timeout_ms: int = 0,
    application_name: str = "samplemind",
) -> AsyncEngine:
    """Make an engine whose connections are closed after use, for migrations and other one-offs."""
    engine = create_async_engine(
        parse_database_url(database_url),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args=connect_arguments(connect_timeout_s, statement_timeout_ms, application_name),
    )
    translate_errors(engine.sync_engine)
    return engine


def parse_database_url(database_url: str | SecretStr) -> URL:
    """Return the URL for the asynchronous psycopg driver, whichever driver it names.

    Raises:
        SettingsError: it cannot be read; the message does not repeat it.
    """
    raw = database_url.get_secret_value() if isinstance(database_url, SecretStr) else database_url
    try:
        url = make_url(raw)
    except (ArgumentError, ValueError):
        # The cause would print the password.
        message = "the PostgreSQL URL cannot be read: postgresql://user:password@host:port/database"
        raise SettingsError(message) from None
    return url.set(drivername="postgresql+psycopg")


def connect_arguments(
    connect_timeout_s: int, statement_timeout_ms: int, application_name: str
) -> dict[str, str | int]:
    """Return what libpq is told for each connection, beside the URL."""
    return {
        "application_name": application_name,
        "connect_timeout": connect_timeout_s,
        "keepalives_idle": _PEER_TIMEOUT_MS // 1000,
        "tcp_user_timeout": _PEER_TIMEOUT_MS,
        "options": f"-c statement_timeout={statement_timeout_ms} -c timezone=UTC",
    }
