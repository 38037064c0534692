"""Trying a search as operators do: what it finds, why, and what the database does for it.

The search runs as it always does, but past the cache and without being counted as popular. Then
each of its statements is run again under EXPLAIN ANALYZE, with the values and in the transaction
that it had.

Invariant: nothing is changed: what is explained are queries only, and the transaction is read only.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from samplemind.connections.resources import Connections
from samplemind.errors import InvalidInputError, NotFoundError
from samplemind.maintenance.plans import Plan, parse_plan
from samplemind.search.filters import Filters
from samplemind.search.query_limits import limit_queries, present_limits
from samplemind.search.question import Search, Searches, question
from samplemind.search.results import Results, milliseconds_since
from samplemind.search.sound import find_by_path
from samplemind.search.suggest import Suggestion

# Settings of the transaction are set by queries, too; they are no part of the search.
_QUERY = re.compile(r"^\s*(select|with)\b(?!\s+set_config\b)", re.IGNORECASE)
_MOST_STATEMENTS = 20
_BY_SOUND = (Search.SIMILAR, Search.HYBRID)

TRIED = (Search.WORDS, Search.FUZZY, Search.SUGGEST, *_BY_SOUND)
"""The searches that can be tried."""

EVERYTHING = Filters(everything=True)


@dataclass(slots=True)
class Statement:
    """One statement of a search: how long it took, from the call to its first row; its plan."""

    sql: str
    milliseconds: float
    plan: Plan | None = None
    values: Any = field(default=None, repr=False)
    settings: dict[str, str] = field(default_factory=dict, repr=False)
    """Of the server, that its transaction was given for it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What a search found and did."""

    took_ms: float
    results: Results | None
    suggestions: tuple[Suggestion, ...]
    statements: tuple[Statement, ...]


async def try_search(
    connections: Connections,
    search: Search,
    query: str = "",
    *,
    like: str = "",
    filters: Filters = EVERYTHING,
    limit: int = 20,
    with_plans: bool = False,
) -> Trial:
    """Search, and tell what the database did.

    Args:
        connections: to the stores.
        search: one of `TRIED`.
        query: the words; of `similar` none are needed.
        like: id or path of an indexed file to sound like, of `similar` and `hybrid`.
        filters: what results must be; none: operators see all.
        limit: how many at most.
        with_plans: explain each statement, which runs it once more.

    Raises:
        InvalidInputError: the question cannot be read.
        NotFoundError: there is no such file to sound like.
        TransientError: the time limit ended a query.
        StoreUnavailableError: PostgreSQL did not answer.
    """
    wishes: dict[str, Any] = {"limit": limit, **_words(search, query)}
    _check_sound(search, like)
    async with connections.postgres.session() as session:
        await session.execute(text("SET TRANSACTION READ ONLY"))
        started = time.perf_counter()
        with _watching(session, await session.connection()) as statements:
            if search in _BY_SOUND:
                wishes["like"] = (await _file_id(session, like.strip()),)
            searches = Searches(connections.settings.search)
            answer = await searches.answer(session, question(search, filters, **wishes))
        took_ms = milliseconds_since(started)
        if with_plans:
            await _explain(session, statements)
    results = answer if isinstance(answer, Results) else None
    suggestions = answer if isinstance(answer, tuple) else ()
    return Trial(took_ms, results, suggestions, tuple(statements))


def _words(search: Search, query: str) -> dict[str, Any]:
    """Return the arguments that a search takes its words and its wish for an account by."""
    if search not in TRIED:
        message = f"{search.value} is not tried; there are {', '.join(TRIED)}"
        raise InvalidInputError(message)
    if search is Search.SIMILAR:
        return {"explain": True}
    if not query.strip():
        message = f"a search of the kind {search.value} needs words"
        raise InvalidInputError(message)
    return {"prefix": query} if search is Search.SUGGEST else {"query": query, "explain": True}


def _check_sound(search: Search, like: str) -> None:
    if search in _BY_SOUND and not like.strip():
        message = f"a search of the kind {search.value} needs a file to sound like"
        raise InvalidInputError(message)


async def _file_id(session: AsyncSession, like: str) -> UUID:
    try:
        return UUID(like)
    except ValueError:
        found = await find_by_path(session, like)
    if found is None:
        message = f"no indexed file has the path {like}"
        raise NotFoundError(message)
    return found


@contextmanager
def _watching(session: AsyncSession, connection: AsyncConnection) -> Iterator[list[Statement]]:
    """Yield the queries that go over the connection while the block runs."""
    statements: list[Statement] = []
    began = 0.0

    def before(
        _connection: Any, _cursor: Any, _sql: str, _values: Any, _context: Any, _many: bool
    ) -> None:
        nonlocal began
        began = time.perf_counter()

    def after(
        _connection: Any, _cursor: Any, sql: str, values: Any, _context: Any, _many: bool
    ) -> None:
        if _QUERY.match(sql) and len(statements) < _MOST_STATEMENTS:
            took_ms, settings = milliseconds_since(began), present_limits(session)
            statements.append(Statement(sql, took_ms, values=values, settings=settings))

    watched = connection.sync_connection
    event.listen(watched, "before_cursor_execute", before)
    event.listen(watched, "after_cursor_execute", after)
    try:
        yield statements
    finally:
        event.remove(watched, "before_cursor_execute", before)
        event.remove(watched, "after_cursor_execute", after)


async def _explain(session: AsyncSession, statements: list[Statement]) -> None:
    for statement in statements:
        # Each in a transaction of its own, under what it was asked under: a walk along the graph
        # forbids plans that a query by words may have.
        await session.rollback()
        await session.execute(text("SET TRANSACTION READ ONLY"))
        await limit_queries(session, extra=statement.settings)
        connection = await session.connection()
        found = await connection.exec_driver_sql(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.sql}", statement.values
        )
        statement.plan = parse_plan(found.scalar_one())
