import numpy as np
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.resources import Connections
from samplemind.documents.audio_file import AudioFile
from samplemind.errors import InvalidInputError
from samplemind.search.filters import Filters
from samplemind.search.full_text import FullTextSearch
from samplemind.search.fusion import Fusion
from samplemind.search.hybrid import HybridSearch
from samplemind.search.indexer import index_files
from samplemind.search.sound import Sound, stored_sound
from samplemind.search.vector import VectorSearch
from tests.library import EMBEDDING_VERSION, add_file, unit_vector

ALL = Filters(everything=True)


@pytest.fixture
async def files(connections: Connections) -> list[AudioFile]:
    """Twelve kicks and twelve snares, half of each loops, all with a sound."""
    await connections.documents()
    files = [
        await add_file(
            f"/{name}/{name}_{number}.wav",
            vector=unit_vector(100 * (name == "kick") + number),
            kind="loop" if number % 2 else "one_shot",
        )
        for name in ("kick", "snare")
        for number in range(12)
    ]
    await index_files(connections, [file.id for file in files])
    return files


async def test_both_fusions_are_what_their_definitions_say(
    session: AsyncSession, files: list[AudioFile]
) -> None:
    sound = Sound(unit_vector(3), EMBEDDING_VERSION)
    words = await FullTextSearch().search_audio_files(session, "kick", filters=ALL, limit=100)
    near = await VectorSearch().similarity_search(session, sound, filters=ALL, limit=100)
    assert (len(words.results), len(near.results)) == (12, 24)
    text_rank = {hit.id: rank for rank, hit in enumerate(words.results, start=1)}
    sound_rank = {hit.id: rank for rank, hit in enumerate(near.results, start=1)}

    by_rank = await HybridSearch().hybrid_search(session, "kick", sound, filters=ALL, limit=24)

    expected = {
        file.id: sum(
            1 / (60 + ranks[file.id]) for ranks in (text_rank, sound_rank) if file.id in ranks
        )
        for file in files
    }
    assert {hit.id: hit.score for hit in by_rank.results} == {
        file_id: pytest.approx(score, abs=1e-6) for file_id, score in expected.items()
    }
    assert (by_rank.total, by_rank.total_is_exact) == (24, True)

    weighted = await HybridSearch().hybrid_search(
        session, "kick", sound, fusion=Fusion.WEIGHTED, text_weight=1, sound_weight=3, filters=ALL
    )

    expected = {file.id: 0.0 for file in files}
    for results, weight in ((words, 0.25), (near, 0.75)):
        scores = {hit.id: hit.score for hit in results.results}
        low, high = min(scores.values()), max(scores.values())
        for file_id, score in scores.items():
            share = 1.0 if high == low else 0.1 + 0.9 * (score - low) / (high - low)
            expected[file_id] += weight * share
    for hit in weighted.results:
        assert hit.score == pytest.approx(expected[hit.id], abs=1e-3)
    scores = [hit.score for hit in weighted.results]
    assert scores == sorted(scores, reverse=True)


async def test_filters_hold_for_words_and_for_sound(
    session: AsyncSession, files: list[AudioFile]
) -> None:
    sound = Sound(unit_vector(3), EMBEDDING_VERSION)
    filters = Filters(everything=True, kind="loop")
    for fusion in Fusion:
        found = await HybridSearch().hybrid_search(
            session, "kick", sound, fusion=fusion, filters=filters
        )
        assert {hit.kind for hit in found.results} == {"loop"}
        assert len(found.results) == 12


async def test_an_explained_score_tells_where_it_comes_from(
    session: AsyncSession, files: list[AudioFile]
) -> None:
    kick = files[0]
    sound = await stored_sound(session, kick.id, filters=ALL)
    found = await HybridSearch().hybrid_search(session, "kick", sound, filters=ALL, explain=True)
    assert kick.id not in {hit.id for hit in found.results}
    for hit in found.results:
        parts = dict(hit.explanation or {})
        assert hit.score == pytest.approx(
            parts.get("text_part", 0) + parts.get("sound_part", 0), abs=1e-5
        )
        assert ("text_rank" in parts) == ("kick" in hit.title)
        assert "sound_score" in parts


async def test_words_that_nothing_has_leave_the_sound(
    session: AsyncSession, files: list[AudioFile]
) -> None:
    sound = Sound(unit_vector(3), EMBEDDING_VERSION)
    found = await HybridSearch().hybrid_search(session, "xylophone", sound, filters=ALL, limit=5)
    near = await VectorSearch().similarity_search(session, sound, filters=ALL, limit=5)
    assert [hit.id for hit in found.results] == [hit.id for hit in near.results]


async def test_weights_and_queries_that_mean_nothing_are_refused(
    session: AsyncSession, files: list[AudioFile]
) -> None:
    sound = Sound(np.ones(128, np.float32), EMBEDDING_VERSION)
    search = HybridSearch()
    for text_weight, sound_weight in ((0, 0), (-1, 2), (float("nan"), 1), (float("inf"), 1)):
        with pytest.raises(InvalidInputError, match="weights"):
            await search.hybrid_search(
                session, "kick", sound, text_weight=text_weight, sound_weight=sound_weight
            )
    with pytest.raises(InvalidInputError, match="word"):
        await search.hybrid_search(session, " ", sound)
    with pytest.raises(InvalidInputError, match="limit"):
        await search.hybrid_search(session, "kick", sound, limit=0)


async def test_highlights_mark_the_words_wherever_a_hit_comes_from(
    session: AsyncSession, files: list[AudioFile]
) -> None:
    sound = Sound(unit_vector(3), EMBEDDING_VERSION)
    found = await HybridSearch().hybrid_search(session, "kick -loop", sound, filters=ALL, limit=24)
    # Hits by sound alone are marked too where they have the word; all kicks have it.
    marked = {hit.title: "<b>kick</b>" in hit.highlight for hit in found.results}
    assert len(marked) == 24
    assert marked == {title: title.startswith("kick") for title in marked}
