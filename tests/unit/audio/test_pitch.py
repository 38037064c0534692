import numpy as np
import pytest

from samplemind.audio.measure import measure
from samplemind.audio.pitch import FRAME, LONGEST_PERIOD, WINDOW, normalised_difference, note_name
from tests.unit.audio.sounds import note, seconds, sine, sound


@pytest.mark.parametrize("midi", range(31, 90, 4))
def test_a_plucked_note_reads_its_pitch_and_octave(midi: int) -> None:
    found = measure(sound(note(midi)))
    frequency = 440 * 2 ** ((midi - 69) / 12)
    assert found.root_frequency_hz == pytest.approx(frequency, rel=0.02)
    assert found.root_note == note_name(frequency)


@pytest.mark.parametrize(
    ("frequency_hz", "name"), [(440.0, "A4"), (110.0, "A2"), (261.63, "C4"), (46.25, "F#1")]
)
def test_notes_have_their_scientific_names(frequency_hz: float, name: str) -> None:
    assert note_name(frequency_hz) == name


def test_a_missing_fundamental_is_still_heard() -> None:
    harmonics = sum(sine(number * 150, 0.8, -12) for number in (2, 3, 4, 5, 6))
    found = measure(sound(harmonics * np.exp(-3 * seconds(0.8))))
    assert found.root_frequency_hz == pytest.approx(150, rel=0.01)


def test_noise_shows_no_root_note() -> None:
    noise = np.random.default_rng(1).normal(size=30_000) * np.exp(-np.arange(30_000) / 5000)
    assert measure(sound(0.2 * noise)).root_note is None


def test_the_difference_function_equals_its_definition() -> None:
    frame = np.random.default_rng(8).normal(size=FRAME)
    differences = [
        np.sum((frame[:WINDOW] - frame[lag : lag + WINDOW]) ** 2)
        for lag in range(LONGEST_PERIOD + 2)
    ]
    expected = [1.0] + [
        differences[lag] / np.mean(differences[1 : lag + 1]) for lag in range(1, len(differences))
    ]
    measured = normalised_difference(frame[None].astype(np.float32))[0]
    np.testing.assert_allclose(measured, expected, atol=1e-4)
