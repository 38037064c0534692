"""How long statements take, measured by engine events.

Invariant: what is kept is bounded: counters, and the durations of the last `WINDOW` statements.
A slow statement is logged with its text and its time; its bound values never are, and quoted
literals in the text are masked, in case a caller wrote a value into one.

A duration is what a caller waits: sending, the server's work and the rows' way back (psycopg
reads them all before it returns), and the event loop's own delay.
"""

import math
import re
import time
from collections import deque
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext

from samplemind.log import get_logger

WINDOW = 2048

_STARTED = "samplemind_statement_started"
_LOGGED_CHARACTERS = 2000
_QUOTED_LITERAL = re.compile(r"'(?:[^']|'')*'")

_log = get_logger(__name__)


class QueryTimer:
    """Counts and times every statement of the engine that it is attached to."""

    def __init__(self, slow_query_ms: int) -> None:
        self.queries = 0
        self.slow_queries = 0
        self._slow_query_ms = slow_query_ms
        self._recent_ms: deque[float] = deque(maxlen=WINDOW)

    def attach(self, engine: Engine) -> None:
        """Listen to the engine's statements from now on."""
        event.listen(engine, "before_cursor_execute", self._start)
        event.listen(engine, "after_cursor_execute", self._finish)
        event.listen(engine, "handle_error", self._finish_failed)

    def percentile_ms(self, share: float) -> float | None:
        """Return the duration in ms that `share` (0 to 1) of the recent statements do not exceed.

        None where no statement was run yet. Nearest rank, so it is a duration that was measured.
        """
        ordered = sorted(self._recent_ms)
        if not ordered:
            return None
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    def _start(
        self, connection: Connection, _cursor: Any, _text: str, _values: Any, _context: Any, _: bool
    ) -> None:
        # One connection runs one statement at a time, so there is one start to remember.
        connection.info[_STARTED] = time.perf_counter()

    def _finish(
        self, connection: Connection, _cursor: Any, text: str, _values: Any, _context: Any, _: bool
    ) -> None:
        self._record(connection, text)

    def _finish_failed(self, context: ExceptionContext) -> None:
        # A statement that ran into its time limit is the one an operator looks for.
        if context.connection is not None and context.statement is not None:
            self._record(context.connection, context.statement)

    def _record(self, connection: Connection, text: str) -> None:
        if connection.closed or connection.invalidated:
            return
        started = connection.info.pop(_STARTED, None)
        if started is None:
            return
        elapsed_ms = (time.perf_counter() - started) * 1000
        self.queries += 1
        self._recent_ms.append(elapsed_ms)
        if elapsed_ms >= self._slow_query_ms:
            self.slow_queries += 1
            _log.warning(
                "postgres.query_slow",
                statement=printable_statement(text),
                duration_ms=round(elapsed_ms, 1),
            )


def printable_statement(text: str) -> str:
    """Return the statement on one line, without the values of quoted literals, cut to a length."""
    masked = _QUOTED_LITERAL.sub("'…'", text)
    return " ".join(masked.split())[:_LOGGED_CHARACTERS]
