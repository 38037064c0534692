from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.resources import Connections
from samplemind.errors import InvalidInputError, NotFoundError
from samplemind.search.filters import Filters, Range
from samplemind.search.full_text import FullTextSearch
from samplemind.search.indexer import index_files
from samplemind.search.results import Results
from samplemind.search.sound import find_by_path, stored_sound
from samplemind.search.vector import VectorSearch
from tests.library import add_file, unit_vector

EVERYTHING = Filters(everything=True)

HOSTILE = (
    "'; DROP TABLE search_documents; --",
    "kick' OR 1=1",
    '"unclosed',
    "kick & | ! <-> :*",
    "кик 🥁 ☃",
    "a\x00b",
    "\\",
    "%_",
)


@pytest.fixture
async def library(connections: Connections) -> dict[str, str]:
    """A few files of two owners, indexed; their ids by a short name."""
    await connections.documents()
    owner = uuid4()
    loop = {"kind": "loop", "tempo_bpm": 128.0, "key": "F# minor", "duration_s": 7.5}
    files = {
        "kick": await add_file("/a/DarkKick_03.wav", tags=["kick"], vector=unit_vector(1)),
        "snare": await add_file("/a/snare.wav", tags=["snare"], vector=unit_vector(2)),
        "loop": await add_file("/a/House_Loop_128bpm_F#m.wav", tags=["drums"], pack="Deep", **loop),
        "other": await add_file(
            "/b/kick_two.wav", tags=["kick"], owner_id=owner, vector=unit_vector(3)
        ),
        "html": await add_file("/a/html.wav", title="<script>Mom's kick"),
    }
    await index_files(connections, [file.id for file in files.values()])
    return {name: str(file.id) for name, file in files.items()} | {"owner": str(owner)}


async def search_audio_files(
    session: AsyncSession, query: str, *, filters: Filters = EVERYTHING, **page: Any
) -> Results:
    return await FullTextSearch().search_audio_files(session, query, filters=filters, **page)


def ids(results: Results) -> set[str]:
    return {str(hit.id) for hit in results.results}


async def test_words_are_found_however_the_name_is_written(
    session: AsyncSession, library: dict[str, str]
) -> None:
    for query in ("dark kick", "kick_03", "DarkKick", "KICKS -two -script"):
        assert library["kick"] in ids(await search_audio_files(session, query)), query
    for query in ("128 bpm", "128bpm", "F# minor", "f#m", "house loop", "deep"):
        assert library["loop"] in ids(await search_audio_files(session, query)), query


async def test_operators_narrow_and_widen(session: AsyncSession, library: dict[str, str]) -> None:
    both = ids(await search_audio_files(session, "dark or snare"))
    assert both == {library["kick"], library["snare"]}
    assert library["kick"] not in ids(await search_audio_files(session, "kick -dark"))
    assert ids(await search_audio_files(session, '"dark kick"')) == {library["kick"]}


async def test_a_title_ranks_before_a_folder(
    session: AsyncSession, connections: Connections
) -> None:
    title = await add_file("/x/thunder.wav")
    folder = await add_file("/thunder/rain.wav", title="rain")
    await index_files(connections, [title.id, folder.id])

    results = await search_audio_files(session, "thunder")

    assert [hit.id for hit in results.results] == [title.id, folder.id]
    assert results.total == 2


async def test_filters_narrow_any_query(session: AsyncSession, library: dict[str, str]) -> None:
    async def found(**narrow: object) -> set[str]:
        filters = Filters(everything=True, **narrow)  # type: ignore[arg-type]
        return ids(await search_audio_files(session, "kick or loop", filters=filters))

    assert await found(tempo_bpm=Range(120, 130)) == {library["loop"]}
    assert await found(tempo_bpm=Range(129, 130)) == set()
    assert await found(key="F# minor", kind="loop") == {library["loop"]}
    assert await found(tags=("kick",)) == {library["kick"], library["other"]}


async def test_an_owner_filter_shows_no_other_owner(
    session: AsyncSession, library: dict[str, str], connections: Connections
) -> None:
    filters = Filters(everything=True, owner_id=UUID(library["owner"]))
    assert ids(await search_audio_files(session, "kick", filters=filters)) == {library["other"]}


async def test_a_highlight_marks_the_words_and_escapes_the_rest(
    session: AsyncSession, library: dict[str, str]
) -> None:
    hits = (await search_audio_files(session, "kick")).results
    highlight = next(hit.highlight for hit in hits if str(hit.id) == library["html"])
    assert highlight == "&lt;script&gt;Mom&#x27;s <b>kick</b>"


@pytest.mark.parametrize("query", HOSTILE)
async def test_no_query_becomes_sql(
    session: AsyncSession, library: dict[str, str], query: str
) -> None:
    try:
        await search_audio_files(session, query)
    except InvalidInputError as error:
        assert "word" in str(error)  # noqa: PT017
    assert (await search_audio_files(session, "kick")).total == 3


@pytest.mark.parametrize("query", ["", "   ", "-", '""', "x" * 501])
async def test_a_query_without_words_is_refused(session: AsyncSession, query: str) -> None:
    with pytest.raises(InvalidInputError):
        await search_audio_files(session, query)


async def test_pages_neither_repeat_nor_drop(
    session: AsyncSession, connections: Connections
) -> None:
    files = [await add_file(f"/many/hat_{n}.wav") for n in range(25)]
    await index_files(connections, [file.id for file in files])
    pages = [
        hit.id
        for offset in range(0, 30, 7)
        for hit in (await search_audio_files(session, "hat", limit=7, offset=offset)).results
    ]
    assert len(pages) == 25
    assert set(pages) == {file.id for file in files}


async def test_a_stored_sound_is_found_by_path_and_is_not_its_own_neighbour(
    session: AsyncSession, library: dict[str, str]
) -> None:
    everything = Filters(everything=True)
    file_id = await find_by_path(session, "/a/DarkKick_03.wav")
    assert str(file_id) == library["kick"]
    assert file_id is not None
    sound = await stored_sound(session, file_id, filters=everything)
    results = await VectorSearch().similarity_search(session, sound, filters=everything)
    assert ids(results) == {library["snare"], library["other"]}


async def test_a_file_without_a_sound_is_told_from_an_unknown_one(
    session: AsyncSession, library: dict[str, str]
) -> None:
    with pytest.raises(NotFoundError, match="no embedding"):
        await stored_sound(session, UUID(library["loop"]), filters=Filters(everything=True))
    with pytest.raises(NotFoundError, match="in the index"):
        await stored_sound(session, uuid4(), filters=Filters(everything=True))
