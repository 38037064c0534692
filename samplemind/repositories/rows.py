"""What a statement that changes rows reports."""

from typing import Any, cast

from sqlalchemy import CursorResult, Delete, Insert, Update
from sqlalchemy.ext.asyncio import AsyncSession


async def changed_rows(session: AsyncSession, statement: Insert | Update | Delete) -> int:
    """Run the statement and return how many rows it changed.

    Objects that the session holds are not brought up to date.
    """
    result = await session.execute(statement, execution_options={"synchronize_session": False})
    return cast("CursorResult[Any]", result).rowcount
