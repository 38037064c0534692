"""The client of the document store, and its errors in the platform's words.

Invariant: every write is acknowledged by a majority and journaled, so a batch never counts a file
whose result a crash could still take back. Only statements that touch one document each are sent
again by the driver (retryable writes); the others are written so that repeating them is harmless.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bson.errors import BSONError
from pymongo import AsyncMongoClient
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DuplicateKeyError,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WaitQueueTimeoutError,
    WTimeoutError,
)

from samplemind import tracing
from samplemind.connections.mongo_spans import MongoSpans
from samplemind.errors import (
    ConflictError,
    InvalidInputError,
    PermanentError,
    PoolTimeoutError,
    SettingsError,
    StackNotRunningError,
    StoreUnavailableError,
)
from samplemind.settings import MongoSettings

Fields = dict[str, Any]

DUPLICATE_KEY = 11000

_CONNECT_TIMEOUT_MS = 5_000
# Above any statement of ours save index builds, which lift it for themselves.
_SOCKET_TIMEOUT_MS = 60_000
_WRITE_TIMEOUT_MS = 10_000
_IDLE_TIMEOUT_MS = 300_000
# The server's words for "not now": shutting down, stepping down, interrupted by either.
_PASSING_LABELS = ("RetryableWriteError", "TransientTransactionError")
_PASSING_CODES = frozenset(
    {6, 7, 89, 91, 112, 189, 211, 262, 9001, 10107, 11600, 11602, 13435, 13436}
)
# 211, KeyNotFound: a server that was just restarted has not loaded the keys that sign its clock.
_REFUSED_LOGIN_CODES = frozenset({13, 18})


def connect_mongo(settings: MongoSettings) -> AsyncMongoClient[Fields]:
    """Make the client; it connects at its first use.

    Raises:
        StackNotRunningError: the settings hold no URL.
        SettingsError: the URL is no MongoDB URL.
    """
    if settings.url is None:
        message = "no address for mongo: start the embedded stack, or set SAMPLEMIND_MONGO_URL"
        raise StackNotRunningError(message)
    try:
        return AsyncMongoClient(
            settings.url.get_secret_value(),
            appname="samplemind",
            uuidRepresentation="standard",
            tz_aware=True,
            maxPoolSize=settings.pool_size,
            maxIdleTimeMS=_IDLE_TIMEOUT_MS,
            waitQueueTimeoutMS=settings.timeout_ms,
            serverSelectionTimeoutMS=settings.timeout_ms,
            connectTimeoutMS=_CONNECT_TIMEOUT_MS,
            socketTimeoutMS=_SOCKET_TIMEOUT_MS,
            retryWrites=True,
            retryReads=True,
            w="majority",
            journal=True,
            wTimeoutMS=_WRITE_TIMEOUT_MS,
            event_listeners=[MongoSpans()] if tracing.is_on() else [],
        )
    except (ConfigurationError, ValueError):
        # The cause would print the URL and its password.
        message = "SAMPLEMIND_MONGO_URL is no MongoDB URL that can be used"
        raise SettingsError(message) from None


@contextmanager
def translating_errors() -> Iterator[None]:
    """Raise PyMongo's errors as the platform's.

    Raises:
        StoreUnavailableError: MongoDB did not answer, or not in time; trying again may help.
        PoolTimeoutError: every connection was in use.
        ConflictError: a document with that unique key exists already.
        InvalidInputError: a value cannot be stored, or the document is too large.
        PermanentError: MongoDB refused the statement.
    """
    try:
        yield
    except PyMongoError as error:
        raise _translate(error) from error
    except (BSONError, OverflowError) as error:  # the latter for an integer beyond 64 bits
        message = f"MongoDB cannot hold this value: {error}"
        raise InvalidInputError(message) from error


def is_duplicate(error: BulkWriteError) -> bool:
    """Whether a bulk write failed for nothing but keys that exist already."""
    details = error.details
    failures = details.get("writeErrors") or []
    return (
        bool(failures)
        and not details.get("writeConcernErrors")
        and all(failure["code"] == DUPLICATE_KEY for failure in failures)
    )


def _translate(error: PyMongoError) -> Exception:
    if isinstance(error, ConnectionFailure):
        return _translate_connection(error)
    if isinstance(error, ExecutionTimeout | WTimeoutError) or error.timeout or _is_passing(error):
        return StoreUnavailableError("MongoDB did not finish the statement in time")
    if isinstance(error, DuplicateKeyError) or (
        isinstance(error, BulkWriteError) and is_duplicate(error)
    ):
        return ConflictError("MongoDB holds a document with this key already")
    if isinstance(error, OperationFailure):
        reason = "the login" if error.code in _REFUSED_LOGIN_CODES else "the statement"
        return PermanentError(f"MongoDB refused {reason} (code {error.code})")
    return PermanentError(f"MongoDB's client refused the statement ({type(error).__name__})")


def _translate_connection(error: ConnectionFailure) -> Exception:
    if isinstance(error, WaitQueueTimeoutError):
        return PoolTimeoutError("no connection to MongoDB came free in time")
    return StoreUnavailableError("MongoDB did not answer")


def _is_passing(error: PyMongoError) -> bool:
    if any(error.has_error_label(label) for label in _PASSING_LABELS):
        return True
    if isinstance(error, BulkWriteError):
        return bool(error.details.get("writeConcernErrors"))
    return isinstance(error, OperationFailure) and error.code in _PASSING_CODES
