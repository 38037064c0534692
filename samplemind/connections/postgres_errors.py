"""PostgreSQL's errors, as the platform's own.

Invariant: every error that a caller can act on becomes one of `samplemind.errors`, chosen by its
SQLSTATE (PostgreSQL manual, appendix A), where it arises: on the engine, before a repository sees
it. What has no translation is a defect of a statement and stays SQLAlchemy's. A message may name
a constraint or a server; it never holds a value of a row or a parameter.
"""

import psycopg
from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext

from samplemind.errors import (
    ConflictError,
    InvalidInputError,
    PermanentError,
    SampleMindError,
    StoreUnavailableError,
    TransientError,
)

# 57P01..57P05: the server ends, restarts or is not up yet; 53300: it has no connection to spare.
_UNAVAILABLE_STATES = frozenset({"57P01", "57P02", "57P03", "57P04", "57P05", "53300"})
_CONNECTION_CLASS = "08"

# Each was rolled back whole by the server, so that trying again is safe.
_TRANSIENT_STATES = {
    "40001": "another transaction changed the same rows; this one was rolled back",
    "40P01": "the transaction was the victim of a deadlock and was rolled back",
    "55P03": "a lock was not free within its time limit",
    "57014": "PostgreSQL ended a statement at its time limit",
    "53100": "PostgreSQL's disk is full",
    "53200": "PostgreSQL is out of memory",
}
_PERMANENT_STATES: dict[str, tuple[type[SampleMindError], str]] = {
    "23505": (ConflictError, "a row with the same unique value exists"),
    "23503": (
        ConflictError,
        "what is referred to is missing, or what should go is still referred to",
    ),
    "23P01": (ConflictError, "a row that excludes this one exists"),
    "23514": (InvalidInputError, "a value is outside of what the table allows"),
    "23502": (InvalidInputError, "a value is missing"),
    "22001": (InvalidInputError, "a value is too long"),
    "22003": (InvalidInputError, "a number is out of range"),
    "22P02": (InvalidInputError, "a value has the wrong form"),
    "22021": (InvalidInputError, "a text holds a character that PostgreSQL cannot store"),
    "22P05": (InvalidInputError, "a text holds a character that PostgreSQL cannot store"),
    "42501": (PermanentError, "PostgreSQL refuses this, by privilege or for an append-only table"),
}


def translate_errors(engine: Engine) -> None:
    """Make the engine raise the platform's errors instead of the driver's."""
    event.listen(engine, "handle_error", _replacement, retval=True)


def translated(error: BaseException, *, connection_lost: bool = False) -> SampleMindError | None:
    """Return the platform's error for the driver's, or none where no caller could act on it.

    Args:
        error: what psycopg raised.
        connection_lost: the driver found its connection closed or broken.
    """
    if not isinstance(error, psycopg.Error):
        return None
    state = error.sqlstate or ""
    unavailable = state in _UNAVAILABLE_STATES or state.startswith(_CONNECTION_CLASS)
    refused = not state and isinstance(error, psycopg.OperationalError)
    if connection_lost or unavailable or refused:
        return StoreUnavailableError(f"PostgreSQL did not answer: {_first_line(error)}")
    if state in _TRANSIENT_STATES:
        return TransientError(_TRANSIENT_STATES[state])
    if state in _PERMANENT_STATES:
        kind, message = _PERMANENT_STATES[state]
        return kind(f"{message}{_place(error)}")
    return None


def _replacement(context: ExceptionContext) -> SampleMindError | None:
    # Returned, not raised: SQLAlchemy raises it from the driver's, after all have listened.
    if context.is_pre_ping:
        return None  # the pool replaces the connection itself
    return translated(context.original_exception, connection_lost=context.is_disconnect)


def _place(error: psycopg.Error) -> str:
    names = (error.diag.table_name, error.diag.column_name, error.diag.constraint_name)
    place = ", ".join(name for name in names if name)
    return f" ({place})" if place else ""


def _first_line(error: psycopg.Error) -> str:
    # Lines after the first are hints, and details that may quote a row.
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
