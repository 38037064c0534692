"""Whole names that begin as somebody types: the best in quality of the first that do.

Invariant: a bounded number of names is read, whoever looks and however popular the beginning is,
and nobody is told the name of a file that they may not see. To walk past what may not be told
would be to read a popular beginning whole, so each owner's names are read by themselves, and of
others' the first are looked at for being public.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    Uuid,
    bindparam,
    collate,
    func,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.models.search_document import SearchDocument
from samplemind.search.filters import Filters, in_public_collection

NAME_LENGTH = 60  # characters of the wording that are indexed; see `text_indexes`

_LEAST = 3  # characters typed; fewer begin too many names
_LOOKED_AT = 100  # of each owner
_ASKED_ABOUT = 500  # whether they are in a public collection
_KEPT_STATEMENTS = 64
_SOMEBODY, _SOMEBODY_ELSE = UUID(int=1), UUID(int=2)


async def find_names(
    session: AsyncSession, typed: str, filters: Filters, limit: int
) -> Sequence[str]:
    """Return names that begin so, the best in quality first; none for less than three letters.

    The transaction's limits are the caller's to set.
    """
    if len(typed) < _LEAST:
        return ()
    statement, parameters = names_statement(typed[:NAME_LENGTH], filters, limit)
    return list(await session.scalars(statement, parameters))


def names_statement(typed: str, filters: Filters, limit: int) -> tuple[Select[Any], dict[str, Any]]:
    """Return the statement of `find_names` and its parameters."""
    whose = filters.owner_id or filters.viewer_id
    parameters = {"typed": typed, "after": end_of(typed), "owner_id": whose}
    return kept_statement(_form(filters), limit), parameters


def end_of(prefix: str) -> str:
    """Return the least text, in the order of code points, that does not begin with the prefix."""
    for i in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[i]) + 1
        if code == 0xD800:
            code = 0xE000
        if code <= 0x10FFFF:
            return prefix[:i] + chr(code)
    return chr(0x10FFFF)


def _form(filters: Filters) -> Filters:
    # Who is asked for is a parameter; whether anybody is, and sees all of it, is the statement's.
    owner_id = _SOMEBODY if filters.owner_id is not None else None
    viewer_id = None
    if filters.viewer_id is not None:
        viewer_id = _SOMEBODY if filters.viewer_id == filters.owner_id else _SOMEBODY_ELSE
    return Filters(everything=filters.everything, owner_id=owner_id, viewer_id=viewer_id)


# Making the statement takes as long as running it.
@lru_cache(maxsize=_KEPT_STATEMENTS)
def kept_statement(form: Filters, limit: int) -> Select[Any]:
    """Return the statement, made once for all who may see alike."""
    first = union_all(*_first(form)).subquery()
    best = func.max(first.c.quality)
    named = select(first.c.title).group_by(first.c.title)
    return named.order_by(best.desc(), first.c.title).limit(limit)


def _first(form: Filters) -> list[Select[Any]]:
    own = SearchDocument.owner_id == bindparam("owner_id", type_=Uuid)
    if form.owner_id is not None:
        return [_begun(own) if form.hides_nothing else _published(own)]
    if form.everything:
        return [_begun()]
    mine = [_begun(own)] if form.viewer_id is not None else []
    return [_begun(SearchDocument.owner_id.is_(None)), *mine, _published()]


def _begun(*whose: ColumnElement[bool], at_most: int | None = None) -> Select[Any]:
    """Return the query for the first names that begin so, in their own order."""
    name = _name()
    typed, after = (bindparam(each, type_=Text) for each in ("typed", "after"))
    # As its index has them, which orders one owner's names by the owner, too.
    order = (SearchDocument.owner_id, name) if whose else (name,)
    found = (
        select(SearchDocument.file_id, SearchDocument.title, SearchDocument.quality)
        .where(*whose, name >= typed, name < after)
        .order_by(*order)
        .limit(at_most or _LOOKED_AT)
        .subquery()
    )
    return select(found)


def _published(*whose: ColumnElement[bool]) -> Select[Any]:
    """Return the query for those of the first names that are in a public collection."""
    first = _begun(*whose, at_most=_ASKED_ABOUT).subquery()
    return select(first).where(in_public_collection(first.c.file_id)).limit(_LOOKED_AT)


def _name() -> ColumnElement[str]:
    # A file's name as it is completed: the start of its wording, in small letters.
    start = func.left(SearchDocument.wording, literal_column(str(NAME_LENGTH)))
    return collate(func.lower(start), "C")
