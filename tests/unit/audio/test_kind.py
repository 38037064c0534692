import numpy as np
import pytest

from samplemind.audio.hints import Kind
from samplemind.audio.kind import guess_kind, tail_level_db
from samplemind.audio.measure import measure
from samplemind.audio.onsets import find_onsets
from tests.unit.audio.sounds import click_track, hit, seconds, sound


def test_a_repeating_track_is_a_loop() -> None:
    assert measure(sound(click_track(120, 8))).kind is Kind.LOOP


def test_a_hit_is_a_one_shot_however_long_it_rings() -> None:
    ringing = np.random.default_rng(0).normal(size=4 * 44_100) * np.exp(-1.5 * seconds(4.0))
    for samples in (hit(1), 0.2 * ringing):
        assert measure(sound(samples)).kind is Kind.ONE_SHOT


def test_each_condition_alone_can_forbid_a_loop() -> None:
    assert guess_kind(4.0, 16, -3.0).kind is Kind.LOOP
    assert guess_kind(0.9, 16, -3.0).kind is Kind.ONE_SHOT
    assert guess_kind(4.0, 2, -3.0).kind is Kind.ONE_SHOT
    assert guess_kind(4.0, 16, -40.0).kind is Kind.ONE_SHOT


def test_a_case_on_the_edge_is_less_certain() -> None:
    assert guess_kind(1.3, 16, -3.0).confidence < 0.2 < guess_kind(8.0, 32, -3.0).confidence


def test_the_tail_is_measured_against_the_loudest_part() -> None:
    assert tail_level_db(np.array([1, 1, 1, 1, 0.1], np.float32)) == pytest.approx(-10.0)
    assert tail_level_db(np.ones(3, np.float32)) == 0.0


def test_onsets_are_found_where_hits_begin() -> None:
    late = np.pad(click_track(120, 8), (5000, 0))
    for samples in (click_track(120, 8), late):
        assert measure(sound(samples)).onset_count == 8
    envelope = np.zeros(100, np.float32)
    envelope[[20, 50, 52, 80]] = [1.0, 0.8, 0.7, 0.9]
    # The peak at 52 follows too closely to be an onset of its own.
    assert find_onsets(envelope).tolist() == [20, 50, 80]
