"""Tempo: beats a minute from the periodicity of onsets, with a confidence and a runner-up.

Every candidate on a grid is scored by the autocorrelation of three onset envelopes (all bands, low,
high) at metrical multiples of its beat, times two broad priors, plus a bonus where the length of
the file is a musical number of beats of that tempo. The scorer has few parameters on purpose: a
ranker with 53 weights won on the set it was fitted on and lost a third on the next.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy import fft as scipy_fft

from samplemind.audio.onsets import SMALLEST_FLUX, moving_mean
from samplemind.audio.spectrum import FRAMES_PER_SECOND, Doubles, Floats

SLOWEST_BPM, FASTEST_BPM, CANDIDATES = 52.0, 215.0, 112
SHORTEST_S = 0.8
LONGEST_BY_LENGTH_S = 60.0
LOW_BANDS, HIGH_BANDS_FROM = 8, 28

# Autocorrelation at these multiples of a beat's lag speaks for a tempo ...
ALL_WEIGHTS = {0.25: 0.189, 0.5: 0.277, 1.0: 1.0, 2.0: 0.725, 4.0: 0.571, 8.0: 0.358}
LOW_WEIGHTS = {1.0: 0.318, 2.0: 0.234, 4.0: 0.349}
HIGH_WEIGHTS = {0.25: 0.204, 0.5: 0.284, 1.0: 0.218}
# ... and at these, which a triple division of the same rhythm would show, against it.
AGAINST_WEIGHTS = {1.5: 0.170, 3.0: 0.178, 1 / 3: 0.214, 0.75: 0.215}
TOLERANCES = (0.992, 1.0, 1.008)

PRIOR_CENTRE_OCTAVES, PRIOR_WIDTH_OCTAVES = 0.0, 0.8  # around 120 BPM
RATE_CENTRE_OCTAVES, RATE_WIDTH_OCTAVES = 1.476, 4.085  # onsets a beat

# (beats, bonus, bonus when the tempo is also a whole number)
LENGTH_BONUSES = (
    ((4, 8, 16, 32, 64), 0.421, 0.804),
    ((1, 2), 0.081, 0.327),
    ((3, 6, 12, 24, 48), 0.075, 0.081),
)
TRIMMED_BEATS, TRIMMED_BONUS = (4, 8, 16, 32, 64), 0.277
LENGTH_WIDTH = 0.011  # natural logarithm of tempo
WHOLE_NUMBER_BPM = 0.03

SNAP_TO_LENGTH, SNAP_TO_WHOLE = 0.008, 0.004
RUNNER_UP_DISTANCE = 0.06  # natural logarithm of tempo


@dataclass(frozen=True, slots=True)
class Tempo:
    """A tempo in BPM, how far it stands above every other (0..1), and the best other one."""

    bpm: float
    confidence: float
    alternative_bpm: float | None


@dataclass(frozen=True, slots=True)
class Length:
    """How long the sound is, as evidence of tempo; only a whole file's length is evidence.

    Attributes:
        file_s: of the whole file.
        audible_s: from the first to the last audible sample.
    """

    file_s: float
    audible_s: float


@functools.cache
def candidate_bpm() -> Doubles:
    """The tempi that are scored, logarithmically spaced, shape (CANDIDATES,)."""
    return np.exp(np.linspace(math.log(SLOWEST_BPM), math.log(FASTEST_BPM), CANDIDATES))


def autocorrelate(envelope: Floats) -> Doubles:
    """Autocorrelation of the envelope above its local mean, 1 at lag 0, corrected for overlap."""
    width = int(FRAMES_PER_SECOND) | 1
    above = np.maximum(envelope - moving_mean(envelope, width), 0.0).astype(np.float64)
    above -= above.mean()
    count = len(above)
    spectrum = scipy_fft.rfft(above, scipy_fft.next_fast_len(2 * count, real=True))
    product: Doubles = scipy_fft.irfft(spectrum.real**2 + spectrum.imag**2)[:count]
    overlap = np.maximum(1 - np.arange(count) / count, 0.3)
    return np.asarray(product / (product[0] + 1e-9) / overlap)


def _periodicity(correlation: Doubles, weights: dict[float, float]) -> Doubles:
    """Weighted autocorrelation at multiples of each candidate's beat, shape (CANDIDATES,)."""
    beat_lags = 60 * FRAMES_PER_SECOND / candidate_bpm()
    factors = np.outer(list(weights), TOLERANCES)
    lags = factors[:, :, None] * beat_lags
    known = np.arange(len(correlation))
    heights = np.interp(lags, known, correlation)
    heights[lags >= len(correlation) - 1] = 0.0
    return np.asarray(np.array(list(weights.values())) @ heights.max(axis=1))


def _priors(onset_count: int, frames: int) -> Doubles:
    octaves = np.log2(candidate_bpm() / 120)
    seconds = max(frames / FRAMES_PER_SECOND, 0.5)
    onsets_per_beat = max(onset_count, 1) / seconds * 60 / candidate_bpm()
    rate = np.log2(np.maximum(onsets_per_beat, 0.05))
    tempo_distance = (octaves - PRIOR_CENTRE_OCTAVES) / PRIOR_WIDTH_OCTAVES
    rate_distance = (rate - RATE_CENTRE_OCTAVES) / RATE_WIDTH_OCTAVES
    return np.asarray(np.exp(-0.5 * (tempo_distance**2 + rate_distance**2)))


def _length_tempi(length: Length) -> list[tuple[float, float]]:
    """(tempo, bonus) for each musical number of beats that the sound may hold."""
    found = []
    for beat_counts, bonus, whole_bonus in LENGTH_BONUSES:
        for beats in beat_counts:
            bpm = 60 * beats / length.file_s
            whole = abs(bpm - round(bpm)) < WHOLE_NUMBER_BPM
            found.append((bpm, whole_bonus if whole else bonus))
    if length.audible_s > SHORTEST_S:
        found += [(60 * beats / length.audible_s, TRIMMED_BONUS) for beats in TRIMMED_BEATS]
    return [(bpm, bonus) for bpm, bonus in found if SLOWEST_BPM - 2 < bpm < FASTEST_BPM + 5]


def _length_bonus(tempi: list[tuple[float, float]]) -> Doubles:
    bonuses = np.zeros(CANDIDATES)
    for bpm, bonus in tempi:
        distance = np.log(candidate_bpm() / bpm) / LENGTH_WIDTH
        np.maximum(bonuses, bonus * np.exp(-0.5 * distance**2), out=bonuses)
    return bonuses


def _refine(bpm: float, correlation: Doubles) -> float:
    """The tempo at the peak near the longest multiple of the beat that the sound holds."""
    for beats in (8, 4, 2, 1):
        lag = 60 * FRAMES_PER_SECOND / bpm * beats
        if lag * 1.03 >= len(correlation) - 2:
            continue
        near = np.arange(int(lag * 0.985), int(lag * 1.015) + 2)
        peak = int(near[correlation[near].argmax()])
        return 60 * FRAMES_PER_SECOND * beats / (peak + peak_offset(correlation, peak))
    return bpm


def peak_offset(values: Doubles, peak: int) -> float:
    """Where a parabola through a peak and its neighbours tops, in (-1, 1) around the peak."""
    if not 0 < peak < len(values) - 1:
        return 0.0
    before, at, after = values[peak - 1 : peak + 2]
    curvature = before - 2 * at + after
    if abs(curvature) < 1e-9:
        return 0.0
    return float(np.clip(0.5 * (before - after) / curvature, -1.0, 1.0))


def _snap(grid_bpm: float, fine_bpm: float, length_bpm: list[float]) -> float:
    """The tempo by length or the whole number that the fine estimate all but names."""
    near = [bpm for bpm in length_bpm if abs(bpm / grid_bpm - 1) < 0.02]
    if near:
        by_length = min(near, key=lambda bpm: abs(bpm / fine_bpm - 1))
        whole = abs(by_length - round(by_length)) < WHOLE_NUMBER_BPM
        if whole or abs(by_length / fine_bpm - 1) < SNAP_TO_LENGTH:
            return by_length
    if abs(fine_bpm / round(fine_bpm) - 1) < SNAP_TO_WHOLE:
        return float(round(fine_bpm))
    return fine_bpm


def estimate_tempo(
    rises: Floats, correlation: Doubles, onset_count: int, length: Length | None
) -> Tempo | None:
    """Tempo of a sound.

    Args:
        rises: `onsets.onset_matrix` of the log-mel spectrum, float32, shape (frames, MEL_BANDS).
        correlation: `autocorrelate` of its mean over bands.
        onset_count: onsets found.
        length: of the sound, or None when only a window of it is known.

    Returns:
        None where nothing in the sound repeats or it is shorter than `SHORTEST_S`.
    """
    if len(rises) < SHORTEST_S * FRAMES_PER_SECOND or rises.max() <= SMALLEST_FLUX:
        return None
    low = autocorrelate(rises[:, :LOW_BANDS].mean(axis=1))
    high = autocorrelate(rises[:, HIGH_BANDS_FROM:].mean(axis=1))
    scores = (
        _periodicity(correlation, ALL_WEIGHTS)
        - _periodicity(correlation, AGAINST_WEIGHTS)
        + _periodicity(low, LOW_WEIGHTS)
        + _periodicity(high, HIGH_WEIGHTS)
    )
    priors = _priors(onset_count, len(rises))
    scores = np.maximum(scores, 0.0) * priors
    by_length: list[tuple[float, float]] = []
    if length is not None and SHORTEST_S < length.file_s < LONGEST_BY_LENGTH_S:
        by_length = _length_tempi(length)
        scores = scores + _length_bonus(by_length) * priors * scores.max()
    return _choose(scores, correlation, [bpm for bpm, _ in by_length])


def _choose(scores: Doubles, correlation: Doubles, length_bpm: list[float]) -> Tempo | None:
    best = int(scores.argmax())
    if scores[best] <= 0:
        return None
    grid_bpm = float(candidate_bpm()[best])
    others = np.where(np.abs(np.log(candidate_bpm() / grid_bpm)) > RUNNER_UP_DISTANCE, scores, 0.0)
    runner_up = int(others.argmax())
    gap = 1 - others[runner_up] / scores[best]
    return Tempo(
        bpm=_snap(grid_bpm, _refine(grid_bpm, correlation), length_bpm),
        confidence=float(np.clip(2 * gap, 0.0, 1.0)),
        alternative_bpm=float(candidate_bpm()[runner_up]) if others[runner_up] > 0 else None,
    )
