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
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from samplemind.connections.resources import Connections
from samplemind.errors import InvalidInputError, NotFoundError
from samplemind.maintenance.plans import Plan, parse_plan
from samplemind.search.filters import Filters
from samplemind.search.full_text import FullTextSearch
from samplemind.search.hybrid import HybridSearch
from samplemind.search.query_limits import limit_queries, present_limits
from samplemind.search.results import Results, milliseconds_since
from samplemind.search.sound import Sound, find_by_path, stored_sound
from samplemind.search.suggest import Suggestion
from samplemind.search.vector import VectorSearch

# Settings of the transaction are set by queries, too; they are no part of the search.
_QUERY = re.compile(r"^\s*(select|with)\b(?!\s+set_config\b)", re.IGNORECASE)
_MOST_STATEMENTS = 20


class TrialKind(StrEnum):
    """How one may search."""

    WORDS = "words"
    FUZZY = "fuzzy"
    SUGGEST = "suggest"
    SIMILAR = "similar"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True)
class Question:
    """What is searched for.

    Attributes:
        query: the words; of `similar` none are needed.
        like: id or path of an indexed file to sound like, of `similar` and `hybrid`.
        with_plans: explain each statement, which runs it once more.
    """

    kind: TrialKind
    query: str = ""
    like: str = ""
    filters: Filters = field(default_factory=lambda: Filters(everything=True))
    limit: int = 20
    with_plans: bool = False


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


async def try_search(connections: Connections, question: Question) -> Trial:
    """Search, and tell what the database did.

    Raises:
        InvalidInputError: the question cannot be read.
        NotFoundError: there is no such file to sound like.
        TransientError: the time limit ended a query.
        StoreUnavailableError: PostgreSQL did not answer.
    """
    _check(question)
    async with connections.postgres.session() as session:
        await session.execute(text("SET TRANSACTION READ ONLY"))
        started = time.perf_counter()
        with _watching(session, await session.connection()) as statements:
            results, suggestions = await _search(connections, session, question)
        took_ms = milliseconds_since(started)
        if question.with_plans:
            await _explain(session, statements)
    return Trial(took_ms, results, suggestions, tuple(statements))


def _check(question: Question) -> None:
    needs_words = question.kind is not TrialKind.SIMILAR
    needs_sound = question.kind in (TrialKind.SIMILAR, TrialKind.HYBRID)
    if needs_words and not question.query.strip():
        message = f"a search of the kind {question.kind.value} needs words"
        raise InvalidInputError(message)
    if needs_sound and not question.like.strip():
        message = f"a search of the kind {question.kind.value} needs a file to sound like"
        raise InvalidInputError(message)


async def _search(
    connections: Connections, session: AsyncSession, question: Question
) -> tuple[Results | None, tuple[Suggestion, ...]]:
    settings = connections.settings.search
    wishes: dict[str, Any] = {"filters": question.filters, "limit": question.limit}
    words = FullTextSearch(settings)
    match question.kind:
        case TrialKind.WORDS:
            return await words.search_audio_files(
                session, question.query, explain=True, **wishes
            ), ()
        case TrialKind.FUZZY:
            return await words.fuzzy_search(session, question.query, **wishes), ()
        case TrialKind.SUGGEST:
            return None, await words.autocomplete(session, question.query, **wishes)
        case TrialKind.SIMILAR:
            sound = await _sound(session, question)
            search = VectorSearch(settings)
            return await search.similarity_search(session, sound, explain=True, **wishes), ()
        case TrialKind.HYBRID:
            sound = await _sound(session, question)
            both = HybridSearch(settings)
            return await both.hybrid_search(
                session, question.query, sound, explain=True, **wishes
            ), ()


async def _sound(session: AsyncSession, question: Question) -> Sound:
    like = question.like.strip()
    try:
        file_id: UUID | None = UUID(like)
    except ValueError:
        file_id = await find_by_path(session, like)
    if file_id is None:
        message = f"no indexed file has the path {like}"
        raise NotFoundError(message)
    return await stored_sound(session, file_id, filters=question.filters)


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
