"""Spectral statistics and MFCCs of a sound, frame by frame in bounded blocks.

Every number but the mel power itself is independent of the sound's level.
"""

import functools
import itertools
from dataclasses import dataclass

import numpy as np

from samplemind.audio.spectrum import (
    ANALYSIS_RATE_HZ,
    FFT_SIZE,
    HOP,
    MEL_BANDS,
    SMALLEST_POWER,
    Floats,
    cosine_basis,
    decibels_below_peak,
    magnitude_blocks,
    mel_filters,
)

MFCC_COUNT = 20
TIMBRE_FLOOR_DB = 60.0
ROLLOFF_SHARE = 0.85
ROLLOFF_GROUP = 32
CONTRAST_EDGES_HZ = (100, 200, 400, 800, 1600, 3200, 6400, 12_800)
CONTRAST_SHARE = 0.1
SMALLEST_MAGNITUDE = 1e-7


@dataclass(frozen=True, slots=True)
class FrameFeatures:
    """One row a frame of `spectrum.HOP` samples at `spectrum.ANALYSIS_RATE_HZ`; float32.

    Attributes:
        mel_power: shape (n, MEL_BANDS).
        energy: power of the whole spectrum, shape (n,).
        centroid_hz, bandwidth_hz, rolloff_hz: shape (n,).
        flatness: geometric over arithmetic mean of the power, 0..1, shape (n,).
        contrast: log10 of peaks over valleys in seven octave bands, shape (n, 7).
        zero_crossings: sign changes a sample around the frame's centre, 0..1, shape (n,).
    """

    mel_power: Floats
    energy: Floats
    centroid_hz: Floats
    bandwidth_hz: Floats
    rolloff_hz: Floats
    flatness: Floats
    contrast: Floats
    zero_crossings: Floats

    def __len__(self) -> int:
        return len(self.energy)


@functools.cache
def _bin_moments() -> Floats:
    """Columns 1, f and f² for each bin: three sums in one product; f in kHz, float32."""
    bins_khz = np.fft.rfftfreq(FFT_SIZE, 1 / ANALYSIS_RATE_HZ) / 1000
    return np.stack([np.ones_like(bins_khz), bins_khz, bins_khz**2], axis=1).astype(np.float32)


def _contrast(magnitude: Floats) -> Floats:
    edges = [int(edge * FFT_SIZE / ANALYSIS_RATE_HZ) for edge in CONTRAST_EDGES_HZ]
    columns = []
    for low, high in itertools.pairwise(edges):
        count = max(1, int((high - low) * CONTRAST_SHARE))
        # numpy's vectorised sort is several times faster than its partition.
        ordered = np.sort(magnitude[:, low:high], axis=1)
        peak = ordered[:, -count:].mean(axis=1) + SMALLEST_MAGNITUDE
        valley = ordered[:, :count].mean(axis=1) + SMALLEST_MAGNITUDE
        columns.append(np.log10(peak / valley))
    return np.stack(columns, axis=1)


def _rolloff_bin(magnitude: Floats) -> Floats:
    """First bin at which `ROLLOFF_SHARE` of the summed magnitude lies at or below it.

    The group of bins that holds it is found first, so only that group is summed bin by bin.
    """
    grouped = magnitude[:, :-1].reshape(len(magnitude), -1, ROLLOFF_GROUP)
    cumulative = np.cumsum(grouped.sum(axis=2), axis=1)
    threshold = ROLLOFF_SHARE * (cumulative[:, -1:] + magnitude[:, -1:])
    reached = np.append(cumulative[:, :-1] >= threshold, np.ones_like(threshold, bool), axis=1)
    group = reached.argmax(axis=1)
    rows = np.arange(len(magnitude))
    before = np.where(group > 0, cumulative[rows, group - 1], 0.0)
    within = before[:, None] + np.cumsum(grouped[rows, group], axis=1)
    found = within >= threshold
    inside = np.where(found.any(axis=1), found.argmax(axis=1), ROLLOFF_GROUP)
    return np.asarray(group * ROLLOFF_GROUP + inside, dtype=np.float32)


def _block_features(magnitude: Floats) -> dict[str, Floats]:
    power = np.square(magnitude)
    total, first, second = (magnitude @ _bin_moments()).T
    total = total + SMALLEST_MAGNITUDE
    centroid = first / total
    bandwidth = np.sqrt(np.maximum(second / total - centroid**2, 0.0))
    ones = np.ones(power.shape[1], dtype=np.float32)
    energy = power @ ones
    log_mean = np.log(np.maximum(power, SMALLEST_POWER)) @ ones / len(ones)
    return {
        "mel_power": power @ mel_filters(),
        "energy": energy,
        "centroid_hz": 1000 * centroid,
        "bandwidth_hz": 1000 * bandwidth,
        "rolloff_hz": _rolloff_bin(magnitude) * np.float32(ANALYSIS_RATE_HZ / FFT_SIZE),
        "flatness": np.minimum(np.exp(log_mean) * len(ones) / (energy + SMALLEST_POWER), 1.0),
        "contrast": _contrast(magnitude),
    }


def _zero_crossings(samples: Floats, frames: int) -> Floats:
    negative = np.signbit(samples)
    changed = np.zeros(frames * HOP + FFT_SIZE, dtype=np.float32)
    count = min(len(samples) - 1, len(changed) - HOP // 2)
    changed[HOP // 2 : HOP // 2 + count] = (negative[1:] != negative[:-1])[:count]
    rates: Floats = changed[: frames * HOP].reshape(frames, HOP).mean(axis=1)
    return rates


def measure_frames(samples: Floats) -> FrameFeatures:
    """Features of every frame of one channel at `spectrum.ANALYSIS_RATE_HZ`, peak near 1."""
    blocks = [_block_features(block) for block in magnitude_blocks(samples, FFT_SIZE, HOP)]
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    crossings = _zero_crossings(samples, len(columns["energy"]))
    return FrameFeatures(**columns, zero_crossings=crossings)


def mel_cepstrum(mel_power: Floats) -> Floats:
    """MFCCs over a floor of `TIMBRE_FLOOR_DB`, float32, shape (n, MFCC_COUNT).

    The level is taken against the loudest band of the sound, so coefficient 0 does not depend on
    its gain.
    """
    levels = decibels_below_peak(mel_power, TIMBRE_FLOOR_DB)
    return np.asarray(levels @ cosine_basis(MEL_BANDS, MFCC_COUNT))


def mean_and_deviation(values: Floats) -> tuple[float, float]:
    """Mean and population standard deviation of one feature over the frames."""
    return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
