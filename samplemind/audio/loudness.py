"""Loudness by ITU-R BS.1770-4 and plain RMS level.

The K-weighting runs in the frequency domain: its impulse response has faded by more than 120 dB
after `HISTORY_S`, so overlap-save with that much history equals the recursive filter to within
rounding, and equal chunks go through the FFT side by side.
"""

import functools
import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import fft as scipy_fft

from samplemind.audio.spectrum import Doubles, Floats

BLOCK_S = 0.4
HOPS_PER_BLOCK = 4  # a block starts every 100 ms
ABSOLUTE_GATE_LUFS = -70.0
RELATIVE_GATE_LU = -10.0
OFFSET_LUFS = -0.691  # makes a 997 Hz sine at 0 dBFS in one channel read -3.01 LUFS
HISTORY_S = 0.06
HOPS_PER_CHUNK = 3
TRANSFORMS_AT_ONCE = 64
SILENCE_DBFS = -120.0


class LoudnessKind(StrEnum):
    """How a loudness was measured: gated blocks, or the whole of a sound shorter than a block."""

    INTEGRATED = "integrated"
    SHORT = "short"


@dataclass(frozen=True, slots=True)
class Loudness:
    """A loudness in LUFS, never below the absolute gate, and how it was measured."""

    lufs: float
    kind: LoudnessKind


def _biquad_response(
    numerator: list[float], denominator: list[float], unit: NDArray[np.complex128]
) -> NDArray[np.complex128]:
    # Polynomials in z^-1, which is the unit circle point that the caller passes.
    return np.asarray(np.polyval(numerator[::-1], unit) / np.polyval(denominator[::-1], unit))


@functools.lru_cache(maxsize=16)
def k_weighting(sample_rate_hz: int, size: int) -> NDArray[np.complex64]:
    """Response of both K-weighting stages at the bins of a real FFT of `size` samples.

    The analogue prototypes behind the 48 kHz coefficients of BS.1770-4, warped to the rate asked
    for (De Man, "Evaluation of implementations of the EBU R128 loudness measurement", 2018).
    """
    unit = np.exp(-2j * np.pi * np.fft.rfftfreq(size))
    warped = math.tan(math.pi * 1681.9744509555319 / sample_rate_hz)
    quality, gain = 0.7071752369554193, 10 ** (3.99984385397 / 20)
    middle = gain**0.499666774155
    tail = [1 + warped / quality + warped**2, 2 * (warped**2 - 1), 1 - warped / quality + warped**2]
    head = [
        gain + middle * warped / quality + warped**2,
        2 * (warped**2 - gain),
        gain - middle * warped / quality + warped**2,
    ]
    shelf = _biquad_response(head, tail, unit)
    warped = math.tan(math.pi * 38.13547087613982 / sample_rate_hz)
    quality = 0.5003270373253953
    tail = [1 + warped / quality + warped**2, 2 * (warped**2 - 1), 1 - warped / quality + warped**2]
    # The standard keeps 1 -2 1 above a denominator scaled to lead with 1.
    high_pass = _biquad_response([tail[0], -2 * tail[0], tail[0]], tail, unit)
    return (shelf * high_pass).astype(np.complex64)


def channel_weights(channels: int) -> Floats:
    """Power weight of each channel: surrounds 1.41, no LFE in 5.1 and wider; else all one."""
    weights = np.ones(channels, dtype=np.float32)
    if channels == 5:
        weights[3:] = 1.41
    elif channels > 5:
        weights[3] = 0.0
        weights[4:6] = 1.41
    return weights


def _hop_energies(samples: Floats, sample_rate_hz: int) -> Doubles:
    """K-weighted energy of all channels in each 100 ms hop; the last hop may be cut short."""
    hop = _hop(sample_rate_hz)
    chunk = HOPS_PER_CHUNK * hop
    size = scipy_fft.next_fast_len(chunk + round(HISTORY_S * sample_rate_hz), real=True)
    history = size - chunk
    response = k_weighting(sample_rate_hz, size)
    weights = channel_weights(samples.shape[1])
    chunks = math.ceil(len(samples) / chunk)
    at_once = max(1, TRANSFORMS_AT_ONCE // len(weights))
    energies = np.zeros((chunks, HOPS_PER_CHUNK))
    for start in range(0, chunks, at_once):
        end = min(start + at_once, chunks)
        part = _padded_part(samples, start * chunk - history, end * chunk)
        views = np.lib.stride_tricks.sliding_window_view(part, size, axis=1)[:, ::chunk]
        spectra = scipy_fft.rfft(views, axis=2)
        spectra *= response
        filtered = scipy_fft.irfft(spectra, size, axis=2, overwrite_x=True)[:, :, history:]
        hops = filtered.reshape(*filtered.shape[:2], HOPS_PER_CHUNK, hop)
        per_channel = np.einsum("kchs,kchs->kch", hops, hops)
        energies[start:end] = np.tensordot(weights, per_channel, axes=1)
    return energies.ravel()


def _padded_part(samples: Floats, start: int, end: int) -> Floats:
    """Frames from `start` to `end`, one row a channel; zeros where the sound has none."""
    part = np.zeros((samples.shape[1], end - start), dtype=np.float32)
    first, last = max(start, 0), min(end, len(samples))
    part[:, first - start : last - start] = samples[first:last].T
    return part


def _hop(sample_rate_hz: int) -> int:
    return round(BLOCK_S * sample_rate_hz / HOPS_PER_BLOCK)


def _lufs(power: float) -> float:
    return OFFSET_LUFS + 10 * math.log10(max(power, 1e-12))


def measure_loudness(samples: Floats, sample_rate_hz: int) -> Loudness:
    """Integrated loudness of a sound (ITU-R BS.1770-4, gated).

    Args:
        samples: float32, shape (frames, channels).
        sample_rate_hz: of the samples.

    Returns:
        The gated loudness; a sound shorter than one 400 ms block is measured as one block of its
        own length and called `SHORT`.
    """
    energies = _hop_energies(samples, sample_rate_hz)
    hop = _hop(sample_rate_hz)
    if len(samples) < HOPS_PER_BLOCK * hop:
        whole = _lufs(float(energies.sum()) / max(len(samples), 1))
        return Loudness(max(whole, ABSOLUTE_GATE_LUFS), LoudnessKind.SHORT)
    full_hops = energies[: len(samples) // hop]
    blocks = np.lib.stride_tricks.sliding_window_view(full_hops, HOPS_PER_BLOCK).sum(axis=1)
    return Loudness(_gated(blocks / (HOPS_PER_BLOCK * hop)), LoudnessKind.INTEGRATED)


def _gated(powers: Doubles) -> float:
    audible = powers[powers > 10 ** ((ABSOLUTE_GATE_LUFS - OFFSET_LUFS) / 10)]
    if not len(audible):
        return ABSOLUTE_GATE_LUFS
    loud = audible[audible > audible.mean() * 10 ** (RELATIVE_GATE_LU / 10)]
    return _lufs(float(loud.mean()))


def measure_rms_dbfs(samples: Floats) -> float:
    """Root mean square over every sample of every channel, in dB against 1.0."""
    flat = samples.ravel()
    mean_square = float(flat @ flat) / max(flat.size, 1)
    return max(10 * math.log10(max(mean_square, 1e-12)), SILENCE_DBFS)
