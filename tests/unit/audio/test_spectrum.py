import math

import numpy as np
import pytest

from samplemind.audio.spectrum import (
    ANALYSIS_RATE_HZ,
    FFT_SIZE,
    HOP,
    MEL_BANDS,
    decibels_below_peak,
    mel_filters,
    resample,
)
from samplemind.audio.timbre import MFCC_COUNT, measure_frames, mel_cepstrum
from tests.unit.audio.sounds import hit, sine


def straightforward_mel(samples: np.ndarray) -> np.ndarray:
    """Mel power with loops and the textbook formulas."""
    mel_edges = np.linspace(
        2595 * math.log10(1 + 30 / 700), 2595 * math.log10(1 + 18_000 / 700), MEL_BANDS + 2
    )
    edges = [700 * (10 ** (mel / 2595) - 1) for mel in mel_edges]
    padded = np.concatenate([np.zeros(FFT_SIZE // 2), samples, np.zeros(FFT_SIZE // 2)])
    window = [0.5 - 0.5 * math.cos(2 * math.pi * i / FFT_SIZE) for i in range(FFT_SIZE)]
    rows = []
    for start in range(0, len(padded) - FFT_SIZE + 1, HOP):
        power = np.abs(np.fft.rfft(padded[start : start + FFT_SIZE] * window)) ** 2
        row = []
        for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
            weights = []
            for index in range(len(power)):
                hz = index * ANALYSIS_RATE_HZ / FFT_SIZE
                up, down = (hz - low) / (centre - low), (high - hz) / (high - centre)
                weights.append(max(0.0, min(up, down)))
            if sum(weights) == 0:
                weights[round(centre * FFT_SIZE / ANALYSIS_RATE_HZ)] = 1.0
            row.append(float(np.dot(weights, power)) / sum(weights))
        rows.append(row)
    return np.array(rows)


def test_mel_power_equals_a_straightforward_implementation() -> None:
    samples = hit(4, 0.12)
    expected = straightforward_mel(samples)
    measured = measure_frames(samples.astype(np.float32)).mel_power
    assert measured.shape == expected.shape
    np.testing.assert_allclose(measured, expected, rtol=2e-3, atol=1e-6 * expected.max())


def test_cepstrum_equals_the_cosine_sum() -> None:
    mel = straightforward_mel(hit(5, 0.1))
    levels = 10 * np.log10(np.maximum(mel, 1e-10))
    levels = np.maximum(levels - levels.max(), -60)
    bands = np.arange(MEL_BANDS)
    expected = np.empty((len(mel), MFCC_COUNT))
    for k in range(MFCC_COUNT):
        scale = math.sqrt((1 if k == 0 else 2) / MEL_BANDS)
        expected[:, k] = scale * levels @ np.cos(math.pi * k * (2 * bands + 1) / (2 * MEL_BANDS))
    np.testing.assert_allclose(mel_cepstrum(mel.astype(np.float32)), expected, atol=0.01)


def test_every_mel_band_has_unit_area_and_none_is_empty() -> None:
    np.testing.assert_allclose(mel_filters().sum(axis=0), 1.0, rtol=1e-5)


@pytest.mark.parametrize("frequency_hz", [200.0, 1000.0, 5000.0])
def test_a_sine_has_its_centroid_and_rolloff_at_its_frequency(frequency_hz: float) -> None:
    frames = measure_frames(sine(frequency_hz, 0.5).astype(np.float32))
    inner = slice(4, -4)
    bin_hz = ANALYSIS_RATE_HZ / FFT_SIZE
    assert frames.centroid_hz[inner] == pytest.approx(frequency_hz, abs=1.5 * bin_hz)
    assert frames.rolloff_hz[inner] == pytest.approx(frequency_hz, abs=2 * bin_hz)
    crossings = frames.zero_crossings[inner].mean()
    assert crossings == pytest.approx(2 * frequency_hz / ANALYSIS_RATE_HZ, rel=0.03)


def test_rolloff_is_the_first_bin_that_reaches_its_share() -> None:
    samples = np.random.default_rng(2).normal(size=20_000).astype(np.float32)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT_SIZE) / FFT_SIZE)
    padded = np.pad(samples, FFT_SIZE // 2)
    measured = measure_frames(samples).rolloff_hz
    for index in range(4, 30):
        part = padded[index * HOP : index * HOP + FFT_SIZE]
        cumulative = np.cumsum(np.abs(np.fft.rfft(part * window)))
        expected = int((cumulative >= 0.85 * cumulative[-1]).argmax())
        assert abs(measured[index] * FFT_SIZE / ANALYSIS_RATE_HZ - expected) <= 1


def test_noise_is_flat_and_a_sine_is_not() -> None:
    noise = np.random.default_rng(0).normal(size=30_000).astype(np.float32)
    assert 0.4 < measure_frames(noise).flatness[4:-4].mean() <= 1.0
    assert measure_frames(sine(1000, 0.5).astype(np.float32)).flatness[4:-4].max() < 0.01


def test_decibels_stop_at_the_floor() -> None:
    levels = decibels_below_peak(np.array([[1.0, 0.1, 1e-9, 0.0]], np.float32), 60)
    np.testing.assert_allclose(levels, [[0, -10, -60, -60]], atol=1e-4)


def test_resampling_keeps_a_tone() -> None:
    halved = resample(sine(440, 1).astype(np.float32), 44_100, 22_050)
    assert len(halved) == 22_050
    np.testing.assert_allclose(halved[500:-500], sine(440, 1, rate=22_050)[500:-500], atol=2e-3)
