"""Root note of a one-shot: the YIN difference function over its loudest stretch.

Cheveigné and Kawahara, "YIN, a fundamental frequency estimator", JASA 2002.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import fft as scipy_fft

from samplemind.audio.key import PITCH_CLASSES, TONAL_RATE_HZ
from samplemind.audio.spectrum import Doubles, Floats, frame_view
from samplemind.audio.tempo import peak_offset

LOWEST_HZ, HIGHEST_HZ = 27.5, 2100.0
LONGEST_PERIOD = math.ceil(TONAL_RATE_HZ / LOWEST_HZ)
SHORTEST_PERIOD = int(TONAL_RATE_HZ / HIGHEST_HZ)
WINDOW = 1024
FRAME = WINDOW + LONGEST_PERIOD + 1
FRAME_HOP = 512
SEARCHED_FRAMES, USED_FRAMES = 60, 8
FRAME_FLOOR = 0.1  # of the loudest frame's energy
DIP_THRESHOLD = 0.2


@dataclass(frozen=True, slots=True)
class Pitch:
    """A fundamental frequency and how periodic the sound is at it, 0..1."""

    frequency_hz: float
    confidence: float


def note_name(frequency_hz: float) -> str:
    """The nearest tempered note at A4 = 440 Hz, "A2"."""
    midi = round(69 + 12 * math.log2(frequency_hz / 440))
    return f"{PITCH_CLASSES[midi % 12]}{midi // 12 - 1}"


def normalised_difference(frames: Floats) -> Doubles:
    """YIN's cumulative-mean-normalised difference of each frame.

    Args:
        frames: float32, shape (n, FRAME).

    Returns:
        Shape (n, LONGEST_PERIOD + 2): 1 at lag 0, near 0 at a period.
    """
    lags = FRAME - WINDOW + 1
    size = scipy_fft.next_fast_len(FRAME, real=True)
    wide = frames.astype(np.float64)
    spectrum = scipy_fft.rfft(wide, size, axis=1)
    head = scipy_fft.rfft(wide[:, :WINDOW], size, axis=1)
    product = scipy_fft.irfft(spectrum * head.conj(), size, axis=1)[:, :lags]
    energy = np.cumsum(np.pad(np.square(wide), ((0, 0), (1, 0))), axis=1)
    shifted = energy[:, WINDOW : WINDOW + lags] - energy[:, :lags]
    difference = np.maximum(shifted[:, :1] + shifted - 2 * product, 0.0)
    mean = np.cumsum(difference[:, 1:], axis=1) / np.arange(1, lags)
    normalised = np.ones(difference.shape)
    normalised[:, 1:] = difference[:, 1:] / np.maximum(mean, 1e-12)
    return normalised


def _period(curve: Doubles) -> tuple[float, float]:
    """The first dip under the threshold, else the deepest: its lag and depth."""
    searched = curve[SHORTEST_PERIOD:]
    under = np.flatnonzero(searched < DIP_THRESHOLD)
    lag = int(under[0] if len(under) else searched.argmin()) + SHORTEST_PERIOD
    while lag + 1 < len(curve) and curve[lag + 1] < curve[lag]:
        lag += 1
    return lag + peak_offset(curve, lag), float(curve[lag])


def estimate_pitch(tonal: Floats) -> Pitch | None:
    """Fundamental of one channel at `TONAL_RATE_HZ`; None where there is no sound."""
    frames = frame_view(tonal, FRAME, FRAME_HOP)[:SEARCHED_FRAMES]
    frames = frames - frames.mean(axis=1, keepdims=True)
    energy = np.einsum("fs,fs->f", frames, frames)
    if energy.max() < 1e-6:
        return None
    loudest = np.argsort(energy)[::-1][:USED_FRAMES]
    loudest = loudest[energy[loudest] > FRAME_FLOOR * energy.max()]
    found = [_period(curve) for curve in normalised_difference(frames[loudest])]
    periods, depths = np.array(found).T
    return Pitch(
        frequency_hz=float(TONAL_RATE_HZ / np.median(periods)),
        confidence=float(np.clip(1 - np.median(depths), 0.0, 1.0)),
    )
