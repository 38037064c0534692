from collections.abc import Callable
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.audio.embedding import BLOCK_SIZES, INPUT_DIMENSIONS, shipped_projection
from samplemind.connections.resources import Connections
from samplemind.errors import InvalidInputError, NotFoundError
from samplemind.models.search_vector import SearchBlocks
from samplemind.repositories.collections import AudioCollectionRepository
from samplemind.repositories.users import UserRepository
from samplemind.search.exact import true_nearest
from samplemind.search.filters import Filters, Range
from samplemind.search.nearest import Metric
from samplemind.search.recall import UNMEASURED_EF_SEARCH, calibrate, chosen_ef_search
from samplemind.search.sound import Sound, combine, stored_sound, stored_sounds
from samplemind.search.vector import MOST_VECTORS, VectorSearch
from samplemind.search.vector_indexes import VectorIndex
from samplemind.settings import SearchSettings
from tests.integration.search.sounds import (
    VERSION,
    SoundLibrary,
    StoredSound,
    clustered,
    make_sounds,
    store,
)

ALL = Filters(everything=True)
MAIN, FRESH = 900, 100
# Everything above this many is walked to: the small library stands for a large one.
WALKING = VectorSearch(SearchSettings(exact_up_to=60))
COMPARING = VectorSearch()


@pytest.fixture
async def library(session: AsyncSession) -> SoundLibrary:
    """A thousand sounds of four owners and of the library's own, a tenth of them fresh."""
    owners: list[UUID | None] = [uuid4(), None, uuid4(), uuid4(), uuid4()]
    made = make_sounds(MAIN + FRESH, owners)
    await store(session, made, fresh=FRESH)
    return made


def wanted(count: int) -> list[Sound]:
    return [Sound(vector, VERSION) for vector in clustered(count, seed=99)]


async def found(
    search: VectorSearch, session: AsyncSession, sound: Sound, filters: Filters = ALL
) -> list[UUID]:
    results = await search.similarity_search(session, sound, filters=filters, limit=10)
    return [hit.id for hit in results.results]


def recall(answers: list[list[UUID]], exact: list[list[UUID]]) -> float:
    shares = [
        len(set(one) & set(other)) / len(other)
        for one, other in zip(answers, exact, strict=True)
        if other
    ]
    return float(np.mean(shares))


@pytest.mark.parametrize("metric", list(Metric))
async def test_comparing_gives_numpys_answer_in_every_metric(
    session: AsyncSession, library: SoundLibrary, metric: Metric
) -> None:
    for sound in wanted(5):
        results = await COMPARING.similarity_search(
            session, Sound(sound.vector * 3, VERSION), metric=metric, filters=ALL, limit=10
        )
        exact = library.nearest(sound.vector * 3, 10, metric=metric)
        assert recall([[hit.id for hit in results.results]], [exact]) >= 0.9  # ties in half floats
        scores = [hit.score for hit in results.results]
        assert scores == sorted(scores, reverse=True)
        assert (results.total, results.total_is_exact) == (MAIN + FRESH, True)


async def test_walking_finds_main_and_fresh_vectors_as_one_answer(
    session: AsyncSession, library: SoundLibrary
) -> None:
    sounds = wanted(30)
    answers = [await found(WALKING, session, sound) for sound in sounds]
    exact = [library.nearest(sound.vector, 10) for sound in sounds]

    assert recall(answers, exact) >= 0.95
    fresh = {sound.file_id for sound in library.sounds[MAIN:]}
    assert {file_id for answer in answers for file_id in answer} & fresh
    newest = library.sounds[-1]
    assert (await found(WALKING, session, Sound(newest.vector, VERSION)))[0] == newest.file_id


async def test_filters_are_right_at_every_selectivity(
    session: AsyncSession, library: SoundLibrary
) -> None:
    owners = {sound.owner_id for sound in library.sounds}
    cases: list[tuple[Filters, Callable[[StoredSound], bool]]] = [
        *(
            (
                Filters(everything=True, owner_id=owner),
                lambda sound, owner=owner: sound.owner_id == owner,
            )
            for owner in owners
            if owner is not None
        ),
        (Filters(everything=True, kind="loop"), lambda sound: sound.kind == "loop"),
        (Filters(everything=True, key="A minor"), lambda sound: sound.key == "A minor"),
        *(
            (
                Filters(everything=True, tempo_bpm=Range(80, high)),
                lambda sound, high=high: sound.tempo_bpm is not None and sound.tempo_bpm <= high,
            )
            for high in (81, 90, 120)
        ),
    ]
    for filters, passes in cases:
        sounds = wanted(8)
        exact = [library.nearest(sound.vector, 10, passes=passes) for sound in sounds]
        for search in (WALKING, COMPARING):
            answers = [await found(search, session, sound, filters) for sound in sounds]
            assert [len(answer) for answer in answers] == [len(each) for each in exact], filters
            assert recall(answers, exact) >= 0.95, filters


async def test_a_viewer_sees_the_library_his_own_and_what_is_public(
    session: AsyncSession, library: SoundLibrary
) -> None:
    publisher = await UserRepository(session).get_or_create_owner("publisher@example.org")
    collections = AudioCollectionRepository(session)
    shown = await collections.add(publisher.id, "shown", is_public=True)
    hidden = await collections.add(publisher.id, "hidden")
    private = [sound.file_id for sound in library.sounds if sound.owner_id is not None]
    await collections.add_files(shown.id, private[:40])
    await collections.add_files(hidden.id, private[40:80])
    viewer = next(sound.owner_id for sound in library.sounds if sound.owner_id is not None)
    public = set(private[:40])

    for viewer_id in (None, viewer, uuid4()):
        for search in (WALKING, COMPARING):
            for extra in ({}, {"kind": "loop"}):
                filters = Filters(viewer_id=viewer_id, **extra)  # type: ignore[arg-type]

                def passes(
                    sound: StoredSound, viewer_id: UUID | None = viewer_id, extra: object = extra
                ) -> bool:
                    seen = sound.owner_id in (None, viewer_id) or sound.file_id in public
                    return seen and (not extra or sound.kind == "loop")

                sounds = wanted(5)
                exact = [library.nearest(sound.vector, 10, passes=passes) for sound in sounds]
                answers = [await found(search, session, sound, filters) for sound in sounds]
                assert recall(answers, exact) >= 0.95, (viewer_id, extra)
                by_id = {sound.file_id: sound for sound in library.sounds}
                assert all(passes(by_id[each]) for answer in answers for each in answer)


async def test_a_private_sound_is_no_example_for_a_stranger(
    session: AsyncSession, library: SoundLibrary
) -> None:
    private = next(sound for sound in library.sounds if sound.owner_id is not None)
    own = Filters(viewer_id=private.owner_id)
    sound = await stored_sound(session, private.file_id, filters=own)
    assert np.array_equal(sound.vector, private.vector)
    for filters in (None, Filters(viewer_id=uuid4())):
        with pytest.raises(NotFoundError, match="in the index"):
            await stored_sound(session, private.file_id, filters=filters)
        with pytest.raises(NotFoundError):
            await COMPARING.near_duplicates(session, private.file_id, filters=filters)


async def test_a_batch_gives_each_sound_its_own_answer_in_one_statement(
    session: AsyncSession, connections: Connections, library: SoundLibrary
) -> None:
    sounds = wanted(40)
    one = library.sounds[5]
    sounds.append(await stored_sound(session, one.file_id, filters=ALL))
    for search in (WALKING, COMPARING):
        await search.similarity_search(session, sounds[0], filters=ALL)
        before = connections.postgres.stats().queries
        batch = await search.batch_similarity_search(session, sounds, filters=ALL, limit=10)
        # Settings, how many there are to compare, settings, the answer itself.
        assert connections.postgres.stats().queries - before <= 4
        answers = [[hit.id for hit in results.results] for results in batch]
        exact = [library.nearest(sound.vector, 10) for sound in sounds[:-1]]
        exact.append([each for each in library.nearest(one.vector, 11) if each != one.file_id])
        assert recall(answers, exact) >= 0.95
        assert all(len(answer) == 10 for answer in answers)


async def test_several_sounds_and_a_disliked_one_make_one_question(
    session: AsyncSession, library: SoundLibrary
) -> None:
    liked = [library.sounds[3], library.sounds[50]]
    disliked = library.sounds[200]
    likes = await stored_sounds(session, [each.file_id for each in liked], filters=ALL)
    dislike = await stored_sound(session, disliked.file_id, filters=ALL)

    both = await found(COMPARING, session, combine(likes))
    mean = liked[0].vector / np.linalg.norm(liked[0].vector) + liked[1].vector / np.linalg.norm(
        liked[1].vector
    )
    inputs = {each.file_id for each in (*liked, disliked)}
    exact = [each for each in library.nearest(mean, 13) if each not in inputs][:10]
    assert recall([both], [exact]) >= 0.9
    assert not inputs & set(both) - {disliked.file_id}

    results = await COMPARING.similarity_search(
        session, combine(likes, [dislike]), filters=ALL, limit=10
    )
    vectors = {sound.file_id: sound.vector for sound in library.sounds}
    towards = [float(vectors[hit.id] @ disliked.vector) for hit in results.results]
    assert np.mean(towards) < np.mean([float(vectors[each] @ disliked.vector) for each in both])
    assert not inputs & {hit.id for hit in results.results}


async def test_near_duplicates_are_the_almost_equal_ones(
    session: AsyncSession, library: SoundLibrary
) -> None:
    one = library.sounds[0]
    rng = np.random.default_rng(5)
    copies = SoundLibrary(
        tuple(
            StoredSound(
                uuid4(), None, (one.vector + noise).astype(np.float32), "loop", None, "C major"
            )
            for noise in (rng.standard_normal((3, 128)) * 0.002).astype(np.float32)
        )
    )
    await store(session, copies, fresh=1)
    for search in (WALKING, COMPARING):
        results = await search.near_duplicates(session, one.file_id, filters=ALL)
        assert {hit.id for hit in results.results} == {each.file_id for each in copies.sounds}
        assert (results.total, results.total_is_exact) == (3, True)


async def test_aspect_weights_order_the_nearest_by_those_aspects(
    session: AsyncSession, library: SoundLibrary
) -> None:
    projection = shipped_projection()
    rng = np.random.default_rng(3)
    blocks = {
        sound.file_id: (
            projection.mean + projection.deviation * rng.standard_normal(INPUT_DIMENSIONS)
        ).astype("<f2")
        for sound in library.sounds
    }
    await session.execute(
        insert(SearchBlocks),
        [
            {"file_id": file_id, "embedding_version": VERSION, "blocks": joined.tobytes()}
            for file_id, joined in blocks.items()
        ],
    )
    one = library.sounds[0].file_id
    sound = await stored_sound(session, one, filters=ALL, with_blocks=True)
    start = BLOCK_SIZES["timbre"] + BLOCK_SIZES["spectrum"]
    envelope = slice(start, start + BLOCK_SIZES["envelope"])

    results = await COMPARING.similarity_search(
        session, sound, filters=ALL, aspects={"envelope": 1.0}, limit=10
    )

    candidates = library.nearest(sound.vector, 501)
    scaled = {
        file_id: blocks[file_id][envelope].astype(float) / projection.deviation[envelope]
        for file_id in candidates
    }
    exact = sorted(
        (file_id for file_id in candidates if file_id != one),
        key=lambda file_id: float(np.linalg.norm(scaled[file_id] - scaled[one])),
    )
    assert recall([[hit.id for hit in results.results]], [exact[:10]]) >= 0.9
    assert all(set(hit.explanation or {}) == {"envelope"} for hit in results.results)


async def test_recall_is_measured_and_the_target_chooses_ef_search(
    session: AsyncSession, library: SoundLibrary
) -> None:
    assert await chosen_ef_search(session, 0.95) == UNMEASURED_EF_SEARCH
    measured = await calibrate(session, queries=15, ladder=(10, 40, 400))

    assert [each.ef_search for each in measured] == [10, 40, 400]
    assert measured[-1].recall >= 0.99
    assert all(each.surely <= each.recall <= 1 for each in measured)
    chosen = await chosen_ef_search(session, 0.95)
    assert chosen == min(each.ef_search for each in measured if each.surely >= 0.95)


async def test_measuring_recall_in_no_time_asks_for_the_least_and_says_so(
    session: AsyncSession, library: SoundLibrary
) -> None:
    told: list[int] = []

    measured = await calibrate(
        session,
        queries=60,
        ladder=(10, 400),
        within_s=0,
        progress=lambda done, _total: told.append(done),
    )

    assert [each.queries for each in measured] == [30, 30]
    assert measured[-1].recall >= 0.99
    assert told == sorted(told)
    assert told[-1] == 1000


async def test_the_library_read_once_gives_each_sound_its_true_nearest(
    session: AsyncSession, library: SoundLibrary
) -> None:
    sounds = wanted(40)

    answers = await true_nearest(session, [each.direction for each in sounds], VERSION, take=10)

    # The oracle rounds what is looked for to half precision, as queries do.
    assert recall(answers, [library.nearest(each.vector, 10) for each in sounds]) >= 0.99
    none = await true_nearest(session, [each.direction for each in sounds], "another", take=10)
    assert none == [[]] * len(sounds)


async def test_what_cannot_be_compared_is_refused(
    session: AsyncSession, library: SoundLibrary
) -> None:
    good = np.ones(128, np.float32)
    for bad, words in (
        (np.zeros(128), "zero"),
        (np.full(128, np.nan), "not finite"),
        (np.full(128, np.inf), "not finite"),
        (np.full(128, 1e6), "beyond"),
        (np.ones(127), "128 numbers"),
        (np.ones((2, 128)), "128 numbers"),
        (np.array(["a"] * 128), "real numbers"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            Sound(bad, VERSION)  # type: ignore[arg-type]
    for search in (WALKING, COMPARING):
        with pytest.raises(InvalidInputError, match=VERSION):
            await search.similarity_search(session, Sound(good, "another"), filters=ALL)
    for limit in (0, -1, 1001):
        with pytest.raises(InvalidInputError, match="limit"):
            await COMPARING.similarity_search(session, Sound(good, VERSION), limit=limit)
    for aspects in (
        {"colour": 1.0},
        {"timbre": -1.0},
        {"timbre": float("nan")},
        {},
        {"pitch": 0.0},
    ):
        with pytest.raises(InvalidInputError):
            await COMPARING.similarity_search(session, Sound(good, VERSION), aspects=aspects)
    with pytest.raises(InvalidInputError, match="blocks"):
        await COMPARING.similarity_search(session, Sound(good, VERSION), aspects={"timbre": 1.0})
    sounds = [Sound(good, VERSION)]
    for batch in ([], sounds * (MOST_VECTORS + 1), [*sounds, Sound(good, "another")]):
        with pytest.raises(InvalidInputError):
            await COMPARING.batch_similarity_search(session, batch, filters=ALL)
    with pytest.raises(NotFoundError):
        await stored_sound(session, uuid4(), filters=ALL)


async def test_indexes_are_created_once_and_change_their_method(
    session: AsyncSession, library: SoundLibrary
) -> None:
    await session.commit()
    search = VectorSearch(SearchSettings(exact_up_to=60, ivfflat_lists=10))
    sounds = wanted(10)
    exact = [library.nearest(sound.vector, 10) for sound in sounds]
    try:
        assert not await search.create_vector_indexes(session)
        changed = await search.create_vector_indexes(session, method=VectorIndex.IVFFLAT)
        assert changed == ["ix_search_vectors_embedding"]
        assert not await search.create_vector_indexes(session, method=VectorIndex.IVFFLAT)
        answers = [await found(search, session, sound) for sound in sounds]
        assert recall(answers, exact) >= 0.95
        await session.execute(text("DROP INDEX ix_search_vectors_owner_id"))
        await session.commit()
    finally:
        restored = await VectorSearch().create_vector_indexes(session)
    assert restored == ["ix_search_vectors_embedding", "ix_search_vectors_owner_id"]
    answers = [await found(search, session, sound) for sound in sounds]
    assert recall(answers, exact) >= 0.95
