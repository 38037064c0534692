import dataclasses

import pytest

from samplemind.audio.hints import Hints, Kind
from samplemind.audio.measure import Measurements, measure
from samplemind.audio.ties import break_ties
from tests.unit.audio.sounds import chord_progression, click_track, hit, sound


@pytest.fixture(scope="module")
def loop() -> Measurements:
    found = measure(sound(click_track(128, 16)))
    return dataclasses.replace(found, tempo_alternative_bpm=96.0)


@pytest.fixture(scope="module")
def chords() -> Measurements:
    return measure(sound(chord_progression(9, minor=True)))


@pytest.mark.parametrize(("named", "expected"), [(64.0, 64.0), (256.0, 256.0), (65.5, 64.0)])
def test_a_named_tempo_moves_the_octave_and_not_the_value(
    loop: Measurements, named: float, expected: float
) -> None:
    resolved = break_ties(loop, Hints(tempo_bpm=named))
    assert resolved.tempo_bpm == pytest.approx(expected, rel=0.005)
    assert resolved.measured_tempo_bpm == loop.tempo_bpm
    assert resolved.tempo_alternative_bpm == loop.tempo_bpm
    assert resolved.hints_used == ("tempo_bpm",)


def test_a_named_tempo_that_agrees_or_fits_nothing_changes_nothing(loop: Measurements) -> None:
    for named in (128.0, 110.0, 171.0):
        resolved = break_ties(loop, Hints(tempo_bpm=named))
        assert resolved.tempo_bpm == loop.tempo_bpm
        assert resolved.hints_used == ()


def test_a_named_tempo_can_choose_the_runner_up(loop: Measurements) -> None:
    resolved = break_ties(loop, Hints(tempo_bpm=95.0))
    assert (resolved.tempo_bpm, resolved.tempo_alternative_bpm) == (96.0, loop.tempo_bpm)


def test_a_hint_never_raises_a_confidence(loop: Measurements, chords: Measurements) -> None:
    hints = Hints(tempo_bpm=64.0, key="C major", kind=Kind.ONE_SHOT)
    for found in (loop, chords):
        resolved = break_ties(found, hints)
        assert resolved.tempo_confidence == found.tempo_confidence
        assert resolved.key_confidence == found.key_confidence
        assert resolved.kind_confidence == found.kind_confidence


def test_a_clear_key_is_not_replaced_by_its_relative(chords: Measurements) -> None:
    sure = dataclasses.replace(chords, key_confidence=0.9)
    assert break_ties(sure, Hints(key="C major")).key == "A minor"


def test_an_unclear_key_takes_the_named_rival(chords: Measurements) -> None:
    unsure = dataclasses.replace(chords, key=None, measured_key=None, key_confidence=0.3)
    resolved = break_ties(unsure, Hints(key="C major"))
    assert (resolved.key, resolved.measured_key) == ("C major", None)
    assert resolved.hints_used == ("key",)
    assert break_ties(unsure, Hints(key="A minor")).key == "A minor"
    assert break_ties(unsure, Hints(key="F# major")).key is None


def test_an_unclear_kind_follows_the_name_and_brings_its_tempo(loop: Measurements) -> None:
    unsure = dataclasses.replace(
        loop, kind=Kind.ONE_SHOT, measured_kind=Kind.ONE_SHOT, kind_confidence=0.2, tempo_bpm=None
    )
    resolved = break_ties(unsure, Hints(kind=Kind.LOOP))
    assert resolved.kind is Kind.LOOP
    assert resolved.measured_kind is Kind.ONE_SHOT
    assert resolved.tempo_bpm == loop.tempo_candidate_bpm
    assert resolved.root_note is None


def test_a_clear_kind_stands_against_the_name() -> None:
    found = measure(sound(hit(2, 0.3)), hints=Hints(kind=Kind.LOOP, tempo_bpm=120.0))
    assert found.kind is Kind.ONE_SHOT
    assert found.tempo_bpm is None
    assert found.hints_used == ()
