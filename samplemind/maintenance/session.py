"""Connections for looking at the database and looking after it.

Invariant: each is one session in autocommit mode, in which transactions are opened where they are
meant; it has a lock timeout, and the server does not count its statements, so that looking for
slow queries does not make the list of them. Where the role may not switch the counting off, the
statements carry a mark by which `slow_queries` leaves them out.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.errors import InsufficientPrivilege, UndefinedObject
from psycopg.rows import dict_row

from samplemind.errors import (
    InvalidInputError,
    PermanentError,
    StackNotRunningError,
    StoreUnavailableError,
    TransientError,
)
from samplemind.settings import Settings

MARK = "samplemind:maintenance"
"""Stands in a comment of each statement that looks for slow ones."""

Row = dict[str, Any]
Session = AsyncConnection[Row]


@asynccontextmanager
async def open_session(
    settings: Settings, *, statement_timeout_ms: int = 0
) -> AsyncIterator[Session]:
    """Open a session and close it after the block; errors of the driver come out translated.

    Raises:
        StackNotRunningError: PostgreSQL has no address.
        StoreUnavailableError: it did not answer, or the connection was lost.
        TransientError: a lock or a statement took longer than it may.
        InvalidInputError: PostgreSQL refuses a statement as it is written.
    """
    url = settings.postgres.url
    if url is None:
        message = "no address for PostgreSQL: start it with `samplemind up`"
        raise StackNotRunningError(message)
    with_driver = url.get_secret_value().replace("postgresql+psycopg://", "postgresql://", 1)
    timeouts = (
        f"-c statement_timeout={statement_timeout_ms} "
        f"-c lock_timeout={settings.maintenance.lock_timeout_ms} -c timezone=UTC -c jit=off"
    )
    try:
        connection = await AsyncConnection[Row].connect(
            with_driver,
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=settings.postgres.connect_timeout_s,
            application_name="samplemind-maintenance",
            options=timeouts,
            # A statement that is prepared is planned once for all: EXPLAIN would show that plan.
            prepare_threshold=None,
        )
        async with connection:
            await _leave_no_trace(connection)
            yield connection
    except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable) as error:
        message = f"PostgreSQL ended a statement of the maintenance: {_first_line(error)}"
        raise TransientError(message) from error
    except psycopg.OperationalError as error:
        message = f"PostgreSQL did not answer: {_first_line(error)}"
        raise StoreUnavailableError(message) from error
    except psycopg.ProgrammingError as error:
        message = f"PostgreSQL refuses the statement: {_first_line(error)}"
        raise InvalidInputError(message) from error
    except psycopg.Error as error:
        message = f"PostgreSQL could not do it: {_first_line(error)}"
        raise PermanentError(message) from error


async def fetch(session: Session, statement: str, parameters: Any = None) -> list[Row]:
    """Return the rows of a statement that is marked as ours."""
    # The text comes from closed sets of our own; values are parameters.
    cursor = await session.execute(f"/* {MARK} */ {statement}", parameters)
    return await cursor.fetchall()


async def extensions(session: Session) -> dict[str, str]:
    """Return the schema of each extension that is installed in the database."""
    rows = await fetch(
        session,
        "SELECT extname, nspname FROM pg_extension JOIN pg_namespace AS n ON n.oid = extnamespace",
    )
    return {row["extname"]: row["nspname"] for row in rows}


async def _leave_no_trace(session: Session) -> None:
    # For superusers, and for roles that were granted the parameter.
    for setting in ("pg_stat_statements.track = 'none'", "pg_stat_statements.track_utility = off"):
        try:
            await session.execute(f"SET {setting}")
        except (InsufficientPrivilege, UndefinedObject):
            return


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
