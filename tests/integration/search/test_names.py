"""Completing whole names: whose are told, and how many are read for it."""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Select, text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.resources import Connections
from samplemind.models.audio_collection import AudioCollection, AudioCollectionItem
from samplemind.models.search_document import SearchDocument
from samplemind.models.user import User
from samplemind.search.filters import Filters
from samplemind.search.full_text import FullTextSearch
from samplemind.search.names import kept_statement, names_statement
from tests.library import index_names

SEARCH = FullTextSearch()


async def add_user(session: AsyncSession) -> UUID:
    user = User(email=f"{uuid4()}@example.org")
    session.add(user)
    await session.flush()
    return user.id


async def publish(session: AsyncSession, owner_id: UUID, file_id: UUID) -> None:
    collection = AudioCollection(owner_id=owner_id, name="shared", is_public=True)
    session.add(collection)
    await session.flush()
    session.add(AudioCollectionItem(collection_id=collection.id, audio_file_id=file_id, position=0))
    await session.flush()


async def names(session: AsyncSession, prefix: str, filters: Filters) -> set[str]:
    found = await SEARCH.autocomplete(session, prefix, filters=filters, limit=50)
    return {one.text for one in found if one.kind == "name"}


@pytest.fixture
def few_looked_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Five names of each owner are looked at, and eight for being public."""
    kept_statement.cache_clear()
    monkeypatch.setattr("samplemind.search.names._LOOKED_AT", 5)
    monkeypatch.setattr("samplemind.search.names._ASKED_ABOUT", 8)
    yield
    kept_statement.cache_clear()


async def test_names_are_told_to_those_who_may_see_their_files(
    session: AsyncSession, connections: Connections
) -> None:
    ada, ben = await add_user(session), await add_user(session)
    await index_names(connections, "Kick Library")
    shared, _ = await index_names(connections, "Kick Ada Shared", "Kick Ada Private", owner_id=ada)
    await index_names(connections, "Kick Ben Private", owner_id=ben)
    await publish(session, ada, shared)
    everybody = {"Kick Library", "Kick Ada Shared"}

    assert await names(session, "kick", Filters()) == everybody
    assert await names(session, "kick", Filters(viewer_id=ada)) == {*everybody, "Kick Ada Private"}
    assert await names(session, "kick", Filters(viewer_id=ben)) == {*everybody, "Kick Ben Private"}
    of_ada = Filters(owner_id=ada, viewer_id=ben)
    assert await names(session, "kick", of_ada) == {"Kick Ada Shared"}
    own = Filters(owner_id=ada, viewer_id=ada)
    assert await names(session, "kick", own) == {"Kick Ada Shared", "Kick Ada Private"}
    assert len(await names(session, "kick", Filters(everything=True))) == 4


async def test_many_private_names_hide_none_that_may_be_told(
    session: AsyncSession, connections: Connections, few_looked_at: None
) -> None:
    many, one = await add_user(session), await add_user(session)
    await index_names(connections, *(f"Kick Alpha {n}" for n in range(10)), owner_id=many)
    await index_names(connections, "Kick Zulu")
    await index_names(connections, "Kick Yankee", owner_id=one)

    assert await names(session, "kick", Filters()) == {"Kick Zulu"}
    assert await names(session, "kick", Filters(viewer_id=one)) == {"Kick Zulu", "Kick Yankee"}
    of_one = Filters(everything=True, owner_id=one)
    assert await names(session, "kick", of_one) == {"Kick Yankee"}


async def test_no_more_names_are_read_than_are_looked_at_whoever_has_the_others(
    session: AsyncSession, connections: Connections, few_looked_at: None
) -> None:
    others, nobody = await add_user(session), uuid4()
    # Enough for the planner to prefer the index, as it does in any library.
    ids = await index_names(connections, "Kick 1", owner_id=others)
    await multiply(session, ids[0], 5000)
    for filters in (
        Filters(),
        Filters(viewer_id=nobody),
        Filters(owner_id=nobody, viewer_id=nobody),
        Filters(owner_id=others),
        Filters(everything=True, owner_id=others),
        Filters(everything=True),
    ):
        statement, parameters = names_statement("kick", filters, 10)
        assert most_rows(await plan_of(session, statement, parameters)) <= 8 + 5


async def plan_of(
    session: AsyncSession, statement: Select[Any], parameters: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Run the statement, and return its plan with what it read."""
    connection = await session.connection()
    compiled = statement.compile(dialect=connection.dialect)
    explained = await connection.exec_driver_sql(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {compiled}", {**compiled.params, **parameters}
    )
    plan: Mapping[str, Any] = explained.scalar_one()[0]["Plan"]
    return plan


async def multiply(session: AsyncSession, file_id: UUID, number: int) -> None:
    """Add so many files to the index that are like this one but for their ids."""
    columns = [column.name for column in SearchDocument.__table__.columns]
    values = ", ".join("gen_random_uuid()" if name == "file_id" else name for name in columns)
    await session.execute(
        text(
            f"INSERT INTO search_documents ({', '.join(columns)}) SELECT {values} "  # noqa: S608
            "FROM search_documents, generate_series(1, :number) WHERE file_id = :id"
        ),
        {"id": file_id, "number": number},
    )
    await session.execute(text("ANALYZE search_documents"))


def most_rows(node: Mapping[str, Any]) -> float:
    """Return the most rows that a node of a plan has read."""

    def nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        yield node
        for child in node.get("Plans", ()):
            yield from nodes(child)

    return max(
        (each["Actual Rows"] + each.get("Rows Removed by Filter", 0)) * each["Actual Loops"]
        for each in nodes(node)
    )
