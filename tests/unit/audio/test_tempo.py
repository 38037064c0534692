import numpy as np
import pytest

from samplemind.audio.measure import Measurements, measure
from tests.unit.audio.sounds import click_track, seconds, sine, sound


def measured(bpm: float, beats: int = 16, *, whole: bool = True) -> Measurements:
    return measure(sound(click_track(bpm, beats), whole=whole))


@pytest.mark.parametrize("bpm", [80.0, 92.5, 100.0, 120.0, 128.0, 140.0, 160.0])
def test_a_click_track_reads_its_tempo_to_half_a_percent(bpm: float) -> None:
    assert measured(bpm).tempo_bpm == pytest.approx(bpm, rel=0.005)


@pytest.mark.parametrize("bpm", [97.3, 128.0, 140.0])
def test_a_window_of_a_longer_file_needs_no_length_to_read_the_tempo(bpm: float) -> None:
    assert measured(bpm, 24, whole=False).tempo_bpm == pytest.approx(bpm, rel=0.005)


def test_the_runner_up_is_another_tempo() -> None:
    found = measured(120.0)
    assert found.tempo_alternative_bpm is not None
    assert abs(found.tempo_alternative_bpm / 120 - 1) > 0.05
    assert 0.0 <= found.tempo_confidence <= 1.0


def test_a_one_shot_has_no_tempo() -> None:
    decaying = sine(200, 1.0) * np.exp(-6 * seconds(1.0))
    found = measure(sound(decaying))
    assert found.tempo_bpm is None


def test_a_steady_tone_repeats_nothing_and_has_no_tempo() -> None:
    assert measure(sound(sine(110, 6.0, -6))).tempo_bpm is None


def test_the_level_does_not_change_the_tempo() -> None:
    track = click_track(111, 16)
    loud, quiet = measure(sound(track)), measure(sound(0.01 * track))
    assert quiet.tempo_bpm == loud.tempo_bpm == pytest.approx(111, rel=0.005)
