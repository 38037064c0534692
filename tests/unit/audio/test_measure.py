import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from samplemind.audio.embedding import DIMENSIONS
from samplemind.audio.measure import Measurements, measure
from tests.unit.audio.sounds import chord_progression, click_track, seconds, sine, sound

CLICK = np.zeros(44_100)
CLICK[20_000] = 1.0
NOISE = np.random.default_rng(0).normal(size=44_100)


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [value] if isinstance(value, int | float) else []


def assert_sound_result(found: Measurements) -> None:
    plain = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert all(math.isfinite(number) for number in numbers(plain))
    assert len(plain["embedding"]) == DIMENSIONS
    for field in ("kind_confidence", "tempo_confidence", "key_confidence", "root_note_confidence"):
        assert 0.0 <= plain[field] <= 1.0


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param(sine(440, 0.02), id="20 ms"),
        pytest.param(np.full(44_100, 0.5), id="direct current"),
        pytest.param(CLICK, id="one click"),
        pytest.param(0.3 * NOISE, id="noise"),
        pytest.param(8.0 * np.sign(NOISE), id="eight times full scale"),
        pytest.param(1e-4 * NOISE, id="barely audible"),
        pytest.param(np.append(np.zeros(200_000), 0.5 * NOISE[:500]), id="silence and a blip"),
        pytest.param(sine(55, 20.0, -6), id="long drone"),
        pytest.param(np.where(np.arange(44_100) % 2, 1.0, -1.0), id="half the sample rate"),
        pytest.param(sine(440, 0.5) + 0.9, id="tone on direct current"),
    ],
)
def test_an_extreme_sound_gives_finite_numbers(samples: np.ndarray) -> None:
    assert_sound_result(measure(sound(samples)))


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 22_050, 48_000, 96_000, 192_000, 384_000])
def test_any_sample_rate_is_measured_alike(rate: int) -> None:
    samples = sine(220, 0.6, -6, rate) * np.exp(-4 * seconds(0.6, rate))
    found = measure(sound(samples, rate))
    assert_sound_result(found)
    assert found.root_note == "A3"


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 16])
def test_any_number_of_channels_is_measured(channels: int) -> None:
    samples = np.tile(sine(220, 0.5, -6)[:, None], (1, channels))
    assert_sound_result(measure(sound(samples)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 2**31),
    st.integers(882, 30_000),
    st.integers(1, 3),
    st.floats(-4, 0.9),
    st.sampled_from(["noise", "sparse", "steps", "ramp"]),
)
def test_no_sound_makes_it_raise(
    seed: int, length: int, channels: int, log_peak: float, shape: str
) -> None:
    random = np.random.default_rng(seed)
    samples = random.normal(size=(length, channels))
    if shape == "sparse":
        samples *= random.random((length, channels)) < 5 / length
        samples[random.integers(length)] = 1.0
    elif shape == "steps":
        samples = np.repeat(samples[: length // 400 + 1], 400, axis=0)[:length]
    elif shape == "ramp":
        samples = np.linspace(-1, 1, length)[:, None] * np.ones((1, channels))
    samples *= 10**log_peak / np.abs(samples).max()
    assert_sound_result(measure(sound(samples)))


def test_statistics_carry_mean_and_deviation_of_every_feature() -> None:
    spectral = measure(sound(chord_progression(0, minor=False))).spectral
    names = {"centroid_hz", "bandwidth_hz", "rolloff_hz", "flatness", "contrast"}
    names |= {"zero_crossing_rate"}
    assert set(spectral) == {f"{name}_{end}" for name in names for end in ("mean", "std")}


def test_a_window_of_a_long_file_is_judged_by_the_file_s_length() -> None:
    window = sound(click_track(120, 32))
    longer = dataclasses.replace(window, duration_s=900.0, whole=False)
    assert measure(longer).tempo_bpm == pytest.approx(120, rel=0.005)
