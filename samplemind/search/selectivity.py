"""How large a table is, and how much of the library passes filters, by the planner's statistics.

Invariant: an estimate that costs no look at a table; it chooses plans and decides nothing else.
"""

from typing import Any

from sqlalchemy import Select, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import Executable
from sqlalchemy.sql.elements import ClauseElement

from samplemind.models.base import Base
from samplemind.models.search_document import SearchDocument
from samplemind.search.filters import Filters

_ROWS = text("""
SELECT reltuples::bigint FROM pg_class WHERE oid = CAST(CAST(:table AS text) AS regclass)
""")


class Explain(Executable, ClauseElement):
    """The planner's estimate of a statement, as JSON; the statement isn't run."""

    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(Explain)
def _compile_explain(element: Explain, compiler: Any, **options: Any) -> str:
    return f"EXPLAIN (FORMAT JSON) {compiler.process(element.statement, **options)}"


async def estimated_rows(session: AsyncSession, table: type[Base]) -> int:
    """Return about how many rows a table has; 0 where it was never analyzed."""
    rows = await session.scalar(_ROWS, {"table": table.__tablename__})
    return max(int(rows or 0), 0)


async def share_of_library(session: AsyncSession, filters: Filters) -> float:
    """Return about how much of the library passes the owner's and the files' filters.

    What a viewer may see is left out: it is most of a library or little of it, and both are right.
    """
    conditions = filters.properties()
    if filters.owner_id is not None:
        conditions.append(SearchDocument.owner_id == filters.owner_id)
    if not conditions:
        return 1.0
    statement = select(SearchDocument.file_id).where(*conditions)
    plan = (await session.execute(Explain(statement))).scalar_one()
    files = await estimated_rows(session, SearchDocument)
    rows = float(plan[0]["Plan"]["Plan Rows"])
    return min(1.0, rows / max(files, rows, 1.0))
