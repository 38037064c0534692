import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, text

from samplemind.connections.postgres import init_connection_pool
from samplemind.connections.postgres_engine import parse_database_url
from samplemind.connections.postgres_errors import translated
from samplemind.connections.query_timing import WINDOW, QueryTimer, printable_statement
from samplemind.errors import (
    ConflictError,
    InvalidInputError,
    PermanentError,
    SampleMindError,
    SettingsError,
    StoreUnavailableError,
    TransientError,
)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_spelling_of_the_url_reaches_the_asynchronous_driver(scheme: str) -> None:
    url = parse_database_url(SecretStr(f"{scheme}://ann:secret@db:5433/samples"))
    assert url.drivername == "postgresql+psycopg"
    assert (url.host, url.port, url.database) == ("db", 5433, "samples")
    assert "secret" not in str(url)


def test_a_sockets_directory_goes_in_the_query() -> None:
    url = parse_database_url("postgresql://ann@/samples?host=/run/postgresql")
    assert url.query["host"] == "/run/postgresql"


@pytest.mark.parametrize("url", ["not a url secret", "postgresql://ann:secret@db:port/samples"])
def test_an_unreadable_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        init_connection_pool(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_pool_opens_nothing_before_it_is_needed() -> None:
    stats = init_connection_pool("postgresql://ann@db/samples").stats()
    assert (stats.size, stats.max_overflow) == (20, 40)
    assert (stats.idle, stats.checked_out, stats.overflow) == (0, 0, 0)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.errors.AdminShutdown(), StoreUnavailableError),
        (psycopg.errors.CannotConnectNow(), StoreUnavailableError),
        (psycopg.errors.TooManyConnections(), StoreUnavailableError),
        (psycopg.errors.ConnectionFailure(), StoreUnavailableError),
        (psycopg.OperationalError("connection refused"), StoreUnavailableError),
        (psycopg.errors.DeadlockDetected(), TransientError),
        (psycopg.errors.SerializationFailure(), TransientError),
        (psycopg.errors.LockNotAvailable(), TransientError),
        (psycopg.errors.QueryCanceled(), TransientError),
        (psycopg.errors.UniqueViolation(), ConflictError),
        (psycopg.errors.ForeignKeyViolation(), ConflictError),
        (psycopg.errors.CheckViolation(), InvalidInputError),
        (psycopg.errors.NotNullViolation(), InvalidInputError),
        (psycopg.errors.InsufficientPrivilege(), PermanentError),
    ],
)
def test_an_error_of_the_driver_has_one_kind(
    error: psycopg.Error, kind: type[SampleMindError]
) -> None:
    assert type(translated(error)) is kind


def test_a_defect_of_a_statement_is_not_dressed_up() -> None:
    assert translated(psycopg.errors.SyntaxError()) is None
    assert translated(psycopg.errors.UndefinedTable()) is None
    assert translated(ValueError()) is None


def test_whatever_the_driver_says_a_lost_connection_is_one() -> None:
    error = translated(psycopg.errors.InternalError_(), connection_lost=True)
    assert type(error) is StoreUnavailableError


def test_an_errors_message_has_no_detail_that_could_quote_a_row() -> None:
    error = translated(psycopg.OperationalError("went away\nDETAIL:  Key (email)=(ann@x.org)"))
    assert "went away" in str(error)
    assert "ann" not in str(error)


@pytest.mark.parametrize(
    ("statement", "printed"),
    [
        ("SELECT *\n  FROM users\n WHERE id = %(id)s", "SELECT * FROM users WHERE id = %(id)s"),
        ("SELECT 'it''s secret', E'x'", "SELECT '…', E'…'"),
        ("SELECT " + "x" * 5000, "SELECT " + "x" * 1993),
    ],
)
def test_a_statement_is_printed_on_one_line_without_literals(statement: str, printed: str) -> None:
    assert printable_statement(statement) == printed


def test_percentiles_are_durations_that_were_measured_and_memory_is_bounded() -> None:
    # Any engine has the events; this one needs no server.
    engine = create_engine("sqlite://")
    timer = QueryTimer(slow_query_ms=60_000)
    timer.attach(engine)
    assert timer.percentile_ms(0.5) is None
    with engine.connect() as connection:
        for _ in range(WINDOW + 10):
            connection.execute(text("SELECT 1"))
    assert timer.queries == WINDOW + 10
    assert timer.slow_queries == 0
    assert len(timer._recent_ms) == WINDOW
    median, high, highest = (timer.percentile_ms(share) for share in (0.5, 0.95, 1.0))
    assert median is not None
    assert high is not None
    assert 0 < median <= high <= max(timer._recent_ms) == highest
