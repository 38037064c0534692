"""Filters against plain Python: whatever is combined, the same files pass."""

import math
from collections.abc import AsyncIterator
from dataclasses import fields, replace
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.connections.resources import Connections
from samplemind.documents.audio_file import AudioFile
from samplemind.models.search_document import SearchDocument
from samplemind.search.filters import Filters, KeyMatch, Period, Range
from tests.corpus import EPOCH, FORMATS, KEYS, TAGS, Corpus, make_corpus, write_corpus

CORPUS = make_corpus(250)
STRANGER = UUID(int=1, version=4)
# The wheel as it is printed: number 1 to 12, the inner ring (A) minor, the outer (B) major.
INNER = ("G#", "D#", "A#", "F", "C", "G", "D", "A", "E", "B", "F#", "C#")
OUTER = ("B", "F#", "C#", "G#", "D#", "A#", "F", "C", "G", "D", "A", "E")
CAMELOT = {
    **{f"{note} minor": (number, "A") for number, note in enumerate(INNER, 1)},
    **{f"{note} major": (number, "B") for number, note in enumerate(OUTER, 1)},
}

reads_only = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
numbers = st.sampled_from((0.25, 0.5, 1.0, 2.0, 60.0, 63.0, 64.0, 70.0, 87.0, 120.0, 128.0, 174.0))
loudness = st.sampled_from((-30.0, -20.0, -14.2, -14.0, -9.5))
moments = st.integers(-1, 11).map(lambda days: EPOCH + timedelta(days=days))


def ranges(values: st.SearchStrategy[float]) -> st.SearchStrategy[Range]:
    ends = st.tuples(st.none() | values, st.none() | values)
    return ends.filter(lambda e: None in e or e[0] <= e[1]).map(lambda e: Range(*e))


def periods() -> st.SearchStrategy[Period]:
    ends = st.tuples(st.none() | moments, st.none() | moments)
    return ends.filter(lambda e: None in e or e[0] < e[1]).map(lambda e: Period(*e))


# What may narrow, field by field; each is left out as often as not.
NARROWER: dict[str, st.SearchStrategy[object]] = {
    "owner_id": st.sampled_from(CORPUS.owners),
    "tempo_bpm": ranges(numbers),
    "duration_s": ranges(numbers),
    "loudness_lufs": ranges(loudness),
    "key": st.sampled_from(KEYS),
    "kind": st.sampled_from(("loop", "one_shot")),
    "formats": st.lists(st.sampled_from(FORMATS), unique=True, min_size=1).map(tuple),
    "tags": st.lists(st.sampled_from(TAGS), unique=True, min_size=1, max_size=2).map(tuple),
    "created": periods(),
}


@st.composite
def filters(draw: st.DrawFn) -> Filters:
    chosen = draw(st.sets(st.sampled_from(sorted(NARROWER)), max_size=4))
    return Filters(
        viewer_id=draw(st.sampled_from((None, STRANGER, *CORPUS.owners))),
        everything=draw(st.booleans()),
        half_or_double=draw(st.booleans()),
        key_match=draw(st.sampled_from(KeyMatch)),
        **{name: draw(NARROWER[name]) for name in sorted(chosen)},  # type: ignore[arg-type]
    )


@pytest.fixture
async def session(connections: Connections) -> AsyncIterator[AsyncSession]:
    async with connections.postgres.session() as opened:
        await write_corpus(opened, CORPUS)
    async with connections.postgres.session() as opened:
        yield opened


@reads_only
@given(wanted=filters())
async def test_the_same_files_pass_as_by_plain_comparison(
    session: AsyncSession, wanted: Filters
) -> None:
    assert await found(session, wanted) == {f.id for f in CORPUS.files if passes(f, wanted, CORPUS)}


@reads_only
@given(wanted=filters(), more=st.data())
async def test_a_further_filter_never_adds_a_file(
    session: AsyncSession, wanted: Filters, more: st.DataObject
) -> None:
    free = [name for name in sorted(NARROWER) if not getattr(wanted, name)]
    name = more.draw(st.sampled_from(free))
    narrowed = replace(wanted, **{name: more.draw(NARROWER[name])})

    assert await found(session, narrowed) <= await found(session, wanted)


@reads_only
@given(wanted=filters())
async def test_nobody_but_the_owner_sees_a_private_file(
    session: AsyncSession, wanted: Filters
) -> None:
    private = {
        file.id
        for file in CORPUS.files
        if file.owner_id not in (None, wanted.viewer_id) and file.id not in CORPUS.public
    }

    assert not private & await found(session, replace(wanted, everything=False))


def test_every_field_of_the_filters_is_tried() -> None:
    tried = {*NARROWER, "viewer_id", "everything", "half_or_double", "key_match"}

    assert tried == {field.name for field in fields(Filters)}


async def found(session: AsyncSession, wanted: Filters) -> set[UUID]:
    query = select(SearchDocument.file_id).where(*wanted.conditions())
    return set(await session.scalars(query))


def passes(file: AudioFile, wanted: Filters, corpus: Corpus) -> bool:
    tempos = (file.tempo_bpm,)
    if wanted.half_or_double and file.tempo_bpm is not None:
        tempos = (file.tempo_bpm, file.tempo_bpm * 2, file.tempo_bpm / 2)
    return all(
        (
            wanted.everything or corpus.visible(file, wanted.viewer_id),
            wanted.owner_id is None or file.owner_id == wanted.owner_id,
            any(within(tempo, wanted.tempo_bpm) for tempo in tempos),
            within(file.duration_s, wanted.duration_s),
            within(file.loudness_lufs, wanted.loudness_lufs, margin=0.5),
            wanted.key is None or key_passes(file.key, wanted.key, wanted.key_match),
            wanted.kind is None or file.kind == wanted.kind,
            not wanted.formats or file.format in wanted.formats,
            set(wanted.tags) <= set(file.tags),
            during(file, wanted.created),
        )
    )


def within(value: float | None, wanted: Range | None, margin: float | None = None) -> bool:
    """One number means its neighbourhood: half a percent, or what `margin` says."""
    low, high = (wanted.low, wanted.high) if wanted is not None else (None, None)
    if low is None and high is None:
        return True
    if value is None:
        return False
    if low is not None and low == high:
        return abs(value - low) <= (abs(low) * 0.005 if margin is None else margin)
    return (-math.inf if low is None else low) <= value <= (math.inf if high is None else high)


def during(file: AudioFile, wanted: Period | None) -> bool:
    start, end = (wanted.start, wanted.end) if wanted is not None else (None, None)
    return (start is None or file.created_at >= start) and (end is None or file.created_at < end)


def key_passes(key: str | None, wanted: str, match: KeyMatch) -> bool:
    if key is None:
        return False
    (number, letter), (wanted_number, wanted_letter) = CAMELOT[key], CAMELOT[wanted]
    steps = min((number - wanted_number) % 12, (wanted_number - number) % 12)
    if match is KeyMatch.EXACT:
        return key == wanted
    if match is KeyMatch.RELATIVE:
        return steps == 0
    return steps == 0 or (steps == 1 and letter == wanted_letter)
