"""Short-time spectra, mel bands and resampling: the ground that every other measurement stands on.

Invariant: memory is bounded by blocks of `BLOCK_FRAMES` spectra; no function here keeps the whole
short-time spectrum of a sound.
"""

import functools
from collections.abc import Iterator

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy import fft as scipy_fft

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

ANALYSIS_RATE_HZ = 44_100
FFT_SIZE = 2048  # 46 ms, bins of 21.5 Hz
HOP = 512  # 11.6 ms
FRAMES_PER_SECOND = ANALYSIS_RATE_HZ / HOP
MEL_BANDS = 64
MEL_LOW_HZ = 30.0
MEL_HIGH_HZ = 18_000.0
BLOCK_FRAMES = 256
SMALLEST_POWER = 1e-10


def resample(samples: Floats, from_hz: int, to_hz: int) -> Floats:
    """Change the sample rate of one channel; soxr's medium quality (16-bit precision)."""
    if from_hz == to_hz:
        return samples
    resampled: Floats = soxr.resample(samples, from_hz, to_hz, quality="MQ")
    return resampled


@functools.cache
def hann(size: int) -> Floats:
    """Periodic Hann window, float32, shape (size,)."""
    phase = 2 * np.pi * np.arange(size) / size
    return (0.5 - 0.5 * np.cos(phase)).astype(np.float32)


def frame_view(samples: Floats, size: int, hop: int) -> Floats:
    """Overlapping frames without a copy, shape (n, size); a shorter sound is padded to one."""
    if len(samples) < size:
        samples = np.pad(samples, (0, size - len(samples)))
    return np.lib.stride_tricks.sliding_window_view(samples, size)[::hop]


def magnitude_blocks(samples: Floats, size: int, hop: int) -> Iterator[Floats]:
    """Yield magnitude spectra in blocks of at most `BLOCK_FRAMES`, shape (n, size // 2 + 1).

    Frame i is centred on sample i * hop; the sound is zero-padded by half a frame at both ends.
    """
    frames = frame_view(np.pad(samples, size // 2), size, hop)
    window = hann(size)
    for start in range(0, len(frames), BLOCK_FRAMES):
        block = frames[start : start + BLOCK_FRAMES] * window
        yield np.abs(scipy_fft.rfft(block, axis=1, overwrite_x=True))


def mel_from_hz(frequency_hz: Doubles | float) -> Doubles:
    """O'Shaughnessy's mel scale: 2595 log10(1 + f / 700)."""
    return np.asarray(2595.0 * np.log10(1.0 + np.asarray(frequency_hz) / 700.0))


def hz_from_mel(mel: Doubles) -> Doubles:
    """Inverse of `mel_from_hz`."""
    return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0))


@functools.cache
def mel_filters() -> Floats:
    """Triangular mel filters of unit area, float32, shape (FFT_SIZE // 2 + 1, MEL_BANDS).

    A low band narrower than one bin takes the bin nearest to its centre, so no band is empty.
    """
    edges = hz_from_mel(
        np.linspace(mel_from_hz(MEL_LOW_HZ), mel_from_hz(MEL_HIGH_HZ), MEL_BANDS + 2)
    )
    bins_hz = np.fft.rfftfreq(FFT_SIZE, 1 / ANALYSIS_RATE_HZ)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins_hz - low) / (centre - low)
    falling = (high - bins_hz) / (high - centre)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    areas = filters.sum(axis=1)
    filters /= np.maximum(areas, 1e-9)[:, None]
    for band in np.flatnonzero(areas == 0):
        filters[band, round(edges[band + 1] * FFT_SIZE / ANALYSIS_RATE_HZ)] = 1.0
    return np.ascontiguousarray(filters.T, dtype=np.float32)


def decibels_below_peak(power: Floats, floor_db: float) -> Floats:
    """Power as decibels against its largest value: 0 at the peak, never below `-floor_db`."""
    level = 10.0 * np.log10(np.maximum(power, SMALLEST_POWER))
    return np.asarray(np.maximum(level - level.max(), -floor_db), dtype=np.float32)


@functools.cache
def cosine_basis(bands: int, coefficients: int) -> Floats:
    """Orthonormal DCT-II basis, float32, shape (bands, coefficients)."""
    basis = scipy_fft.dct(np.eye(bands), type=2, norm="ortho", axis=0)[:coefficients]
    return np.ascontiguousarray(basis.T, dtype=np.float32)
