"""Proving with the planner that an index would help, without building it where it would be felt.

Two ways. HypoPG tells the planner of an index that does not exist. Without it, the table is copied
into a temporary table of the same name (whole where it is small, else a sample of its pages) inside
a transaction that is rolled back; PostgreSQL looks up a temporary name first, so the query is
planned against the copy, on which the candidate is really built. The table itself is only read.

Invariant: nothing outlives the proof, and no lock is taken that a writer would wait for. Costs
before and after are of the same copy, so that they compare.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import psycopg

from samplemind.maintenance.index_candidates import Candidate
from samplemind.maintenance.index_usage import IndexFacts
from samplemind.maintenance.plans import Plan, parse_plan
from samplemind.maintenance.session import Session, extensions, fetch

SAMPLE_ROWS = 50_000

_COLUMNS = """
SELECT quote_ident(attname) AS name FROM pg_attribute
WHERE attrelid = %(table)s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
ORDER BY attnum
"""


class ProofMethod(StrEnum):
    """How it was shown."""

    HYPOPG = "hypopg"
    WHOLE_COPY = "copy"  # of the whole table
    SAMPLED_COPY = "sample"  # of some of its pages


@dataclass(frozen=True, slots=True)
class Table:
    """A table as the proof needs it."""

    schema: str
    name: str
    rows: float
    size_bytes: int


class Prover(Protocol):
    """Builds candidates, plans queries."""

    method: ProofMethod
    share: float
    """Of the table that it works on, 0..1."""

    async def build(self, candidate: Candidate) -> int:
        """Make the index; return its size in bytes for the whole table."""

    @asynccontextmanager
    def trial(self) -> AsyncIterator[None]:
        """Take away what was built in the block."""
        ...

    async def plan(self, query: str) -> Plan | None:
        """Return the query's plan by now; none where it cannot be planned here."""


@asynccontextmanager
async def open_prover(
    session: Session, table: Table, existing: Sequence[IndexFacts]
) -> AsyncIterator[Prover]:
    """Prepare the proof of indexes on one table; all is gone after the block."""
    async with session.transaction(force_rollback=True):
        if "hypopg" in await extensions(session):
            yield _Hypothetical(session)
            await session.execute("SELECT hypopg_reset()")
        else:
            yield await _copy(session, table, existing)


async def generic_plan(session: Session, query: str) -> Plan | None:
    """Return the plan of a normalised statement, whose values are $1, $2; none if there is none.

    Some statements cannot be planned as they are counted (a type was in what was cut out).
    """
    try:
        async with session.transaction(force_rollback=True):
            rows = await fetch(
                session,
                f"EXPLAIN (GENERIC_PLAN, VERBOSE, FORMAT JSON) {query.rstrip().rstrip(';')}",
            )
    except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError):
        return None
    return parse_plan(rows[0]["QUERY PLAN"])


class _Hypothetical:
    method = ProofMethod.HYPOPG
    share = 1.0

    def __init__(self, session: Session) -> None:
        self._session = session
        self._built: list[int] = []

    async def build(self, candidate: Candidate) -> int:
        [row] = await fetch(
            self._session,
            "SELECT indexrelid::bigint AS oid, hypopg_relation_size(indexrelid) AS size "
            "FROM hypopg_create_index(%(sql)s)",
            {"sql": candidate.create(f'"{candidate.schema}"')},
        )
        self._built.append(row["oid"])
        return int(row["size"])

    @asynccontextmanager
    async def trial(self) -> AsyncIterator[None]:
        kept = len(self._built)
        try:
            yield
        finally:
            for oid in self._built[kept:]:
                await fetch(
                    self._session, "SELECT hypopg_drop_index(%(oid)s::bigint::oid)", {"oid": oid}
                )
            del self._built[kept:]

    async def plan(self, query: str) -> Plan | None:
        return await generic_plan(self._session, query)


class _Copied:
    def __init__(self, session: Session, table: Table, share: float) -> None:
        self._session = session
        self._table = table
        self.share = share
        self.method = ProofMethod.WHOLE_COPY if share >= 1 else ProofMethod.SAMPLED_COPY

    async def build(self, candidate: Candidate) -> int:
        await self._session.execute(candidate.create("pg_temp"))
        [row] = await fetch(
            self._session,
            "SELECT pg_relation_size(indexrelid) AS size FROM pg_index WHERE indrelid = "
            "%(table)s::regclass ORDER BY indexrelid DESC LIMIT 1",
            {"table": f'pg_temp."{self._table.name}"'},
        )
        return int(row["size"] / self.share)

    @asynccontextmanager
    async def trial(self) -> AsyncIterator[None]:
        async with self._session.transaction(force_rollback=True):
            yield

    async def plan(self, query: str) -> Plan | None:
        plan = await generic_plan(self._session, query)
        # A query that names the schema is planned against the table itself, which has no index.
        if plan is None or not any(
            node.relation == self._table.name and (node.schema or "").startswith("pg_temp")
            for node in plan.nodes()
        ):
            return None
        return plan


async def _copy(session: Session, table: Table, existing: Sequence[IndexFacts]) -> _Copied:
    source = f'"{table.schema}"."{table.name}"'
    copy = f'pg_temp."{table.name}"'
    share = min(1.0, SAMPLE_ROWS / max(table.rows, 1))
    sample = "" if share >= 1 else f"TABLESAMPLE SYSTEM ({share * 100:.6f}) REPEATABLE (1)"
    columns = await fetch(session, _COLUMNS, {"table": source})
    names = ", ".join(row["name"] for row in columns)
    like = f"LIKE {source} INCLUDING GENERATED INCLUDING STATISTICS"
    for statement in (
        f'CREATE TEMPORARY TABLE "{table.name}" ({like}) ON COMMIT DROP',
        f"INSERT INTO {copy} ({names}) SELECT {names} FROM {source} {sample}",  # noqa: S608
    ):
        await session.execute(statement)
    for index in existing:
        # Other kinds take long to build and compete with no B-tree for these conditions.
        if index.method == "btree" and index.is_valid:
            definition = index.definition.split(" USING ", 1)[1]
            unique = "UNIQUE " if index.is_unique else ""
            await session.execute(
                f'CREATE {unique}INDEX "{index.index}" ON {copy} USING {definition}'
            )
    await session.execute(f"ANALYZE {copy}")
    return _Copied(session, table, share)
