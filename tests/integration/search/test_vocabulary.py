"""Who is told which word of the index, and how many files have it."""

from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.resources import Connections
from samplemind.models.audio_collection import AudioCollection, AudioCollectionItem
from samplemind.models.user import User
from samplemind.search import suggest
from samplemind.search.filters import Filters
from samplemind.search.full_text import FullTextSearch
from samplemind.search.statistics import refresh_vocabulary
from tests.library import index_names

SEARCH = FullTextSearch()
STRANGER = Filters()
EVERYTHING = Filters(everything=True)


@pytest.fixture
async def owner(session: AsyncSession) -> UUID:
    user = User(email="owner@example.org")
    session.add(user)
    await session.flush()
    return user.id


async def count_words(
    connections: Connections, *names: str, owner_id: UUID | None = None
) -> list[UUID]:
    """Index files of these names and count all words; return their ids."""
    ids = await index_names(connections, *names, owner_id=owner_id)
    async with connections.postgres.session() as counting:
        await refresh_vocabulary(counting)
    return ids


async def told(session: AsyncSession, prefix: str, filters: Filters) -> dict[str, int | None]:
    found = await SEARCH.autocomplete(session, prefix, filters=filters, limit=10)
    return {one.text: one.documents for one in found if one.kind == "word"}


async def test_a_private_word_is_not_told_however_many_files_have_it(
    session: AsyncSession, connections: Connections, owner: UUID
) -> None:
    await count_words(connections, "zanzibar_take_1", owner_id=owner)
    # As if a private library of a million files had it.
    await session.execute(text("UPDATE search_words SET documents = 900000"))

    for viewer in (STRANGER, Filters(viewer_id=uuid4())):
        assert await told(session, "zanz", viewer) == {}
        assert await told(session, "zanziba", viewer) == {}
        fuzzy = await SEARCH.fuzzy_search(session, "zanzibra", filters=viewer)
        assert (fuzzy.did_you_mean, fuzzy.results) == (None, ())
    # The owner is told the word, but not a count that others' files are in.
    assert await told(session, "zanz", Filters(viewer_id=owner)) == {"zanzibar": None}
    assert await told(session, "zanz", EVERYTHING) == {"zanzibar": 900_000}


async def test_counts_are_of_files_that_everybody_may_see(
    session: AsyncSession, connections: Connections, owner: UUID
) -> None:
    private = await count_words(connections, "marimba_1", "marimba_2", "marimba_3", owner_id=owner)
    await count_words(connections, "marimba_4")
    assert await told(session, "mar", STRANGER) == {"marimba": 1}
    assert await told(session, "mar", EVERYTHING) == {"marimba": 4}

    collection = AudioCollection(owner_id=owner, name="shared", is_public=True)
    session.add(collection)
    await session.flush()
    session.add(
        AudioCollectionItem(collection_id=collection.id, audio_file_id=private[0], position=0)
    )
    await session.flush()
    assert await told(session, "marimb", STRANGER) == {"marimba": 1}


async def test_private_words_do_not_crowd_out_those_that_may_be_told(
    session: AsyncSession, connections: Connections, owner: UUID
) -> None:
    private = [f"kor{letter}a_{n}" for letter in "bcdfghjklmnp" for n in range(2)]
    await count_words(connections, *private, owner_id=owner)
    await count_words(connections, "korza")
    assert await told(session, "kor", STRANGER) == {"korza": 1}
    assert "korza" not in await told(session, "kor", EVERYTHING)


async def test_an_owner_is_told_rare_words_that_no_prefix_has_ready(
    session: AsyncSession, connections: Connections, owner: UUID
) -> None:
    popular = [f"kor{letter}a_{n}" for letter in "bcdfghjklmnp" for n in range(2)]
    await count_words(connections, *popular)
    await count_words(connections, "korzu_7", owner_id=owner)
    # Nor is it among the words that a longer look at the vocabulary finds.
    await session.execute(text("DELETE FROM search_words WHERE word = 'korzu'"))

    for viewer in (Filters(everything=True, owner_id=owner), Filters(viewer_id=owner)):
        assert ("korzu" in await told(session, "kor", viewer)) == viewer.everything
        assert "korzu" in await told(session, "korz", viewer)
    for stranger in (STRANGER, Filters(viewer_id=uuid4()), Filters(owner_id=owner)):
        assert "korzu" not in await told(session, "korz", stranger)


async def test_of_somebody_elses_files_the_words_of_public_ones_are_told(
    session: AsyncSession, connections: Connections, owner: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await count_words(connections, "Kórza_1", "korzu_2", "korze_3", owner_id=owner)
    await count_words(connections, "korzi_4")
    other = User(email="other@example.org")
    session.add(other)
    await session.flush()
    for whose, file_id in ((owner, ids[0]), (other.id, ids[1])):
        collection = AudioCollection(owner_id=whose, name="shared", is_public=True)
        session.add(collection)
        await session.flush()
        session.add(
            AudioCollectionItem(collection_id=collection.id, audio_file_id=file_id, position=0)
        )
        await session.flush()

    for prefix in ("kor", "korz"):
        for viewer in (None, other.id):
            of_owner = Filters(owner_id=owner, viewer_id=viewer)
            assert (await told(session, prefix, of_owner)).keys() == {"korza", "korzu"}
    # Of many files few are asked about, beside those in the owner's own collections.
    monkeypatch.setattr(suggest, "_OWN_ASKED_ABOUT", 1)
    await session.execute(text("DELETE FROM search_documents WHERE file_id = :id"), {"id": ids[1]})
    assert (await told(session, "korz", Filters(owner_id=owner))).keys() == {"korza"}


async def test_a_private_word_spares_nobody_a_correction(
    session: AsyncSession, connections: Connections, owner: UUID
) -> None:
    await count_words(connections, "kikc", owner_id=owner)
    await count_words(connections, "kick_1", "kick_2")
    fuzzy = await SEARCH.fuzzy_search(session, "kikc", filters=STRANGER)
    assert (fuzzy.did_you_mean, fuzzy.searched, len(fuzzy.results)) == ("kick", "kick", 2)
    own = await SEARCH.fuzzy_search(session, "kikc", filters=Filters(viewer_id=owner))
    assert (own.did_you_mean, own.searched, len(own.results)) == (None, "kikc", 1)


async def test_a_far_commoner_word_is_suggested_and_searched_only_where_nothing_is_found(
    session: AsyncSession, connections: Connections
) -> None:
    ids = await count_words(connections, "led_lamp", "lead_synth", "lead_bell")
    await session.execute(text("UPDATE search_words SET documents = 900 WHERE word = 'lead'"))

    alone = await SEARCH.fuzzy_search(session, "led", filters=EVERYTHING)
    assert (alone.did_you_mean, alone.searched) == ("lead", "led")
    assert [hit.id for hit in alone.results] == [ids[0]]

    together = await SEARCH.fuzzy_search(session, "led synth", filters=EVERYTHING)
    assert (together.did_you_mean, together.searched) == ("lead synth", "lead synth")
    assert [hit.id for hit in together.results] == [ids[1]]
