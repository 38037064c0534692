"""How much of the library passes some filters, by the planner's own statistics.

Invariant: an estimate, from 0 to 1, that costs no look at a table; it chooses plans and decides
nothing else.
"""

from typing import Any

from sqlalchemy import Select, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import Executable
from sqlalchemy.sql.elements import ClauseElement

from samplemind.models.search_document import SearchDocument
from samplemind.search.filters import Filters

_FILES = text("SELECT reltuples FROM pg_class WHERE oid = 'search_documents'::regclass")


class Explain(Executable, ClauseElement):
    """The planner's estimate of a statement, as JSON; the statement isn't run."""

    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(Explain)
def _compile_explain(element: Explain, compiler: Any, **options: Any) -> str:
    return f"EXPLAIN (FORMAT JSON) {compiler.process(element.statement, **options)}"


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
    files = await session.scalar(_FILES)
    rows = float(plan[0]["Plan"]["Plan Rows"])
    return min(1.0, rows / max(float(files or 0), rows, 1.0))
