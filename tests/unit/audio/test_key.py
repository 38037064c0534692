import numpy as np
import pytest

from samplemind.audio.key import PITCH_CLASSES, relative_key
from samplemind.audio.measure import KEY_SHOWN_FROM, measure
from tests.unit.audio.sounds import chord_progression, seconds, sound


@pytest.mark.parametrize("tonic", range(12))
@pytest.mark.parametrize("mode", ["major", "minor"])
def test_a_cadence_names_its_key(tonic: int, mode: str) -> None:
    found = measure(sound(chord_progression(tonic, minor=mode == "minor")))
    assert found.key_candidate == f"{PITCH_CLASSES[tonic]} {mode}"
    assert found.key == found.measured_key == found.key_candidate


def test_a_detuned_cadence_keeps_its_key_and_tells_its_tuning() -> None:
    samples = chord_progression(5, minor=False)
    # Read a fortieth of an octave faster, the same samples sound 30 cents higher.
    faster = np.interp(
        np.arange(0, len(samples) - 1, 2 ** (30 / 1200)), np.arange(len(samples)), samples
    )
    found = measure(sound(faster))
    assert found.key_candidate == "F major"
    assert found.tuning_cents == pytest.approx(30, abs=5)


@pytest.mark.parametrize(
    ("key", "relative"),
    [
        ("C major", "A minor"),
        ("A minor", "C major"),
        ("F# minor", "A major"),
        ("B major", "G# minor"),
    ],
)
def test_relative_keys_share_their_notes(key: str, relative: str) -> None:
    assert relative_key(key) == relative


def test_the_relative_key_stands_beside_the_candidate() -> None:
    found = measure(sound(chord_progression(9, minor=True)))
    assert (found.key_candidate, found.key_relative) == ("A minor", "C major")


def test_noise_shows_no_key() -> None:
    random = np.random.default_rng(5)
    hits = random.normal(size=4 * 44_100) * np.exp(-12 * (seconds(4.0) % 0.25))
    found = measure(sound(0.2 * hits))
    assert found.key is None
    assert found.key_confidence < KEY_SHOWN_FROM
