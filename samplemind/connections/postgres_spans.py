"""A span for each statement to PostgreSQL, where traces are sent and a step is being taken.

Invariant: it shows the statement's text with quoted literals masked, and never a bound value.
"""

from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext

from samplemind import tracing
from samplemind.connections.query_timing import printable_statement
from samplemind.tracing import Role, Span

_SPAN = "samplemind_statement_span"


def trace_statements(engine: Engine) -> None:
    """Make spans of the engine's statements from now on, if traces are sent."""
    if not tracing.is_on():
        return
    event.listen(engine, "before_cursor_execute", _begin)
    event.listen(engine, "after_cursor_execute", _end)
    event.listen(engine, "handle_error", _end_failed)


def _begin(
    connection: Connection, _cursor: Any, text: str, _values: Any, _context: Any, _: bool
) -> None:
    if not tracing.is_within_span():
        return
    shown = printable_statement(text)
    operation = shown.partition(" ")[0].upper()
    connection.info[_SPAN] = tracing.begin_span(
        f"postgresql {operation}",
        Role.CLIENT,
        {"db.system.name": "postgresql", "db.operation.name": operation, "db.query.text": shown},
    )


def _end(
    connection: Connection, _cursor: Any, _text: str, _values: Any, _context: Any, _: bool
) -> None:
    _take(connection).end()


def _end_failed(context: ExceptionContext) -> None:
    if context.connection is None or context.connection.closed or context.connection.invalidated:
        return
    span = _take(context.connection)
    span.fail(type(context.original_exception).__name__)
    span.end()


def _take(connection: Connection) -> Span:
    span: Span = connection.info.pop(_SPAN, tracing.NO_SPAN)
    return span
