"""Onsets: where a sound begins anew.

The envelope is a spectral flux against a maximum over neighbouring bands, which a vibrato does not
fool (Böck and Widmer, "Maximum filter vibrato suppression for onset detection", DAFx 2013).
"""

import numpy as np
from numpy.typing import NDArray

from samplemind.audio.spectrum import FRAMES_PER_SECOND, Floats

FLUX_LAG = 2  # frames between the two spectra compared
PEAK_RADIUS = 3  # an onset is the largest of seven frames
MEAN_S = 0.2
PEAK_OVER_MEAN = 0.06  # of the envelope's largest value
CLOSEST_S = 0.05
SMALLEST_FLUX = 1e-6
ATTACK_LEVEL = 0.1  # of the loudest frame's amplitude


def onset_matrix(log_mel: Floats) -> Floats:
    """Half-wave rectified rise of each band, float32, same shape as `log_mel` (frames, bands)."""
    rise = np.zeros_like(log_mel)
    if len(log_mel) <= FLUX_LAG:
        return rise
    neighbours = log_mel.copy()
    np.maximum(neighbours[:, 1:], log_mel[:, :-1], out=neighbours[:, 1:])
    np.maximum(neighbours[:, :-1], log_mel[:, 1:], out=neighbours[:, :-1])
    np.maximum(log_mel[FLUX_LAG:] - neighbours[:-FLUX_LAG], 0.0, out=rise[FLUX_LAG:])
    return rise


def moving_mean(values: Floats, width: int) -> Floats:
    """Centred mean over `width` values (odd), the ends padded with zeros; same length."""
    half = width // 2
    cumulative = np.cumsum(np.pad(values.astype(np.float64), (half + 1, half)))
    mean: Floats = ((cumulative[width:] - cumulative[:-width]) / width).astype(np.float32)
    return mean


def begins_at_once(energy: Floats, onsets: NDArray[np.intp]) -> bool:
    """Whether a sound is loud from its first frames, where the flux has nothing to compare with.

    Args:
        energy: of each frame.
        onsets: what `find_onsets` found.
    """
    loud = bool(energy[:FLUX_LAG].max() >= ATTACK_LEVEL**2 * energy.max())
    return loud and not bool((onsets <= 2 * FLUX_LAG).any())


def find_onsets(envelope: Floats) -> NDArray[np.intp]:
    """Frames at which an onset lies, ascending.

    Args:
        envelope: onset strength, float32, one value a frame of `spectrum.HOP` samples.
    """
    if len(envelope) < 2 * FLUX_LAG + 1 or envelope.max() <= SMALLEST_FLUX:
        return np.zeros(0, dtype=np.intp)
    strength = envelope / envelope.max()
    padded = np.pad(strength, PEAK_RADIUS)
    largest = np.lib.stride_tricks.sliding_window_view(padded, 2 * PEAK_RADIUS + 1).max(axis=1)
    threshold = moving_mean(strength, int(MEAN_S * FRAMES_PER_SECOND) | 1) + PEAK_OVER_MEAN
    closest = CLOSEST_S * FRAMES_PER_SECOND
    kept: list[int] = []
    for frame in np.flatnonzero((strength >= largest) & (strength >= threshold)):
        if not kept or frame - kept[-1] > closest:
            kept.append(int(frame))
    return np.array(kept, dtype=np.intp)
