from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.resources import Connections
from samplemind.errors import InvalidInputError, NotFoundError
from samplemind.search.filters import Filters, Range
from samplemind.search.full_text import Results, search_audio_files
from samplemind.search.indexer import index_files
from samplemind.search.vector import find_by_path, find_similar, stored_vector
from tests.library import EMBEDDING_VERSION, add_file, unit_vector

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
    near = await find_similar(session, unit_vector(1), EMBEDDING_VERSION, filters=filters)
    assert ids(near) == {library["other"]}


async def test_a_highlight_marks_the_words_and_escapes_the_rest(
    session: AsyncSession, library: dict[str, str]
) -> None:
    hits = (await search_audio_files(session, "kick")).results
    highlight = next(hit.highlight for hit in hits if str(hit.id) == library["html"])
    assert highlight == "script Mom&#x27;s <b>kick</b>"


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


async def test_the_nearest_are_those_of_the_exact_answer(
    session: AsyncSession, connections: Connections
) -> None:
    vectors = {n: unit_vector(n) for n in range(60)}
    files = [await add_file(f"/v/{n}.wav", vector=vector) for n, vector in vectors.items()]
    await index_files(connections, [file.id for file in files])
    wanted = unit_vector(1000)

    results = await find_similar(session, wanted, EMBEDDING_VERSION, limit=10)

    similarity = {file.id: float(vectors[n] @ wanted) for n, file in enumerate(files)}
    exact = sorted(similarity, key=lambda file_id: -similarity[file_id])[:10]
    assert [hit.id for hit in results.results] == exact
    for hit in results.results:
        assert hit.score == pytest.approx(similarity[hit.id], abs=2e-3)  # halfvec's precision


async def test_a_stored_sound_is_found_by_path_and_is_not_its_own_neighbour(
    session: AsyncSession, library: dict[str, str]
) -> None:
    file_id = await find_by_path(session, "/a/DarkKick_03.wav")
    assert str(file_id) == library["kick"]
    assert file_id is not None
    vector, version = await stored_vector(session, file_id)
    results = await find_similar(session, vector, version, exclude=file_id)
    assert ids(results) == {library["snare"], library["other"]}


async def test_embeddings_of_another_version_are_never_compared(
    session: AsyncSession, library: dict[str, str]
) -> None:
    assert not (await find_similar(session, unit_vector(1), "another")).results


async def test_a_bad_vector_or_an_unknown_file_is_refused(
    session: AsyncSession, library: dict[str, str]
) -> None:
    for bad in (
        np.zeros(128, np.float32),
        np.full(128, np.nan, np.float32),
        np.ones(3, np.float32),
    ):
        with pytest.raises(InvalidInputError):
            await find_similar(session, bad.astype(np.float32), EMBEDDING_VERSION)
    with pytest.raises(NotFoundError):
        await stored_vector(session, uuid4())
    with pytest.raises(NotFoundError, match="no embedding"):
        await stored_vector(session, UUID(library["loop"]))
