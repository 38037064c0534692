"""Key: pitch-class profiles from spectral peaks, scored against 24 rotated key profiles.

Peaks and profiles after Faraldo et al., "Key estimation in electronic dance music", ECIR 2016.

Invariant: the answer does not depend on the sound's level or its tuning, which is measured and
taken out before peaks become pitch classes.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samplemind.audio.spectrum import Doubles, Floats, magnitude_blocks

TONAL_RATE_HZ = 11_025
TONAL_FFT_SIZE = 4096  # 372 ms, bins of 2.7 Hz
TONAL_HOP = 1024
LOWEST_PEAK_HZ, HIGHEST_PEAK_HZ = 55.0, 3500.0
PEAK_FLOOR = 0.01  # of the frame's largest peak: -40 dB
FRAME_FLOOR = 0.02  # of the loudest frame's level
# A peak may be the h-th partial of a note: it speaks for that note's pitch class by this much.
PARTIAL_WEIGHTS = (1.0, 0.6, 0.36, 0.2, 0.13)
PEAKS_AT_ONCE = 16_384
LOWEST_NOTE = 30  # MIDI: a supposed fundamental below it is not a note
BASS_BELOW = 55  # MIDI
OPENING_PART = 8  # the first eighth often states the tonic
BASS_WEIGHT, OPENING_WEIGHT = 0.32, 0.63
SHARPNESS = 8.0  # from scores to chances
# Drums without a pitch reach a peakiness of about 0.03, a chord loop 0.1.
NOISE_PEAKINESS, TONAL_RISE = 0.02, 0.04

PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
MODES = ("major", "minor")
# Centred profiles fitted by `benchmarks/fit_key.py`, tonic first, one a mode.
MODE_PROFILES = (
    (0.53, -0.32, -0.02, -0.36, 0.36, -0.17, -0.35, 0.61, -0.27, 0.27, -0.34, 0.06),
    (0.64, -0.48, 0.16, 0.29, -0.34, -0.18, -0.34, 0.68, -0.04, -0.38, 0.12, -0.13),
)


@dataclass(frozen=True, slots=True)
class Key:
    """The likeliest key, its confidence (0..1) and the runner-up; keys are "F# minor"."""

    name: str
    confidence: float
    runner_up: str


@dataclass(frozen=True, slots=True)
class PitchClasses:
    """How strongly each pitch class sounds, C first; float64, shape (12,) each.

    Attributes:
        whole: over the whole sound.
        bass: of peaks below `BASS_BELOW` only.
        opening: bass and half of the whole, over the first eighth.
        tuning_cents: distance of the sound's own A from 440 Hz.
    """

    whole: Doubles
    bass: Doubles
    opening: Doubles
    tuning_cents: float

    @property
    def peakiness(self) -> float:
        """How far from flat the profile is: 0 when all classes are equal, 1 when one sounds."""
        total = self.whole.sum()
        return float((self.whole.max() / total - 1 / 12) * 12 / 11) if total > 0 else 0.0


@dataclass(frozen=True, slots=True)
class _Peaks:
    frame: NDArray[np.intp]
    midi: Doubles
    magnitude: Doubles
    frame_top: Doubles  # largest magnitude of each frame
    frame_level: Doubles


def _block_peaks(magnitude: Floats, first_bin: int) -> tuple[NDArray[np.intp], Doubles, Doubles]:
    """Frame, frequency in bins and magnitude of each local maximum of a block."""
    inner = magnitude[:, 1:-1]
    threshold = np.maximum(inner.max(axis=1, keepdims=True) * PEAK_FLOOR, 1e-6)
    is_peak = (inner > magnitude[:, :-2]) & (inner >= magnitude[:, 2:]) & (inner > threshold)
    frame, bin_ = np.nonzero(is_peak)
    before, at, after = (
        np.log(np.maximum(magnitude[frame, bin_ + step], 1e-9)).astype(np.float64)
        for step in range(3)
    )
    curvature = np.minimum(before - 2 * at + after, -1e-9)
    offset = np.clip(0.5 * (before - after) / curvature, -0.5, 0.5)
    return frame, first_bin + bin_ + offset, inner[frame, bin_].astype(np.float64)


def _find_peaks(tonal: Floats) -> _Peaks:
    bins_per_hz = TONAL_FFT_SIZE / TONAL_RATE_HZ
    low, high = int(LOWEST_PEAK_HZ * bins_per_hz), int(HIGHEST_PEAK_HZ * bins_per_hz)
    frames, bins, magnitudes, tops, levels = [], [], [], [], []
    done = 0
    for block in magnitude_blocks(tonal, TONAL_FFT_SIZE, TONAL_HOP):
        band = block[:, low - 1 : high + 1]
        frame, bin_, magnitude = _block_peaks(band, low)
        frames.append(frame + done)
        bins.append(bin_)
        magnitudes.append(magnitude)
        tops.append(band[:, 1:-1].max(axis=1))
        levels.append(np.sqrt(np.einsum("fb,fb->f", band, band)))
        done += len(block)
    return _Peaks(
        frame=np.concatenate(frames),
        midi=69 + 12 * np.log2(np.concatenate(bins) / bins_per_hz / 440),
        magnitude=np.concatenate(magnitudes),
        frame_top=np.concatenate(tops).astype(np.float64),
        frame_level=np.concatenate(levels).astype(np.float64),
    )


def _fold(midi: Doubles, weight: Doubles) -> Doubles:
    """Sum of weights for each pitch class of the note nearest to each pitch."""
    folded = np.bincount(np.round(midi).astype(np.intp) % 12, weight, minlength=12)
    return folded.astype(np.float64)


def _fold_partials(midi: Doubles, weight: Doubles) -> Doubles:
    """Pitch classes of every note that a peak may be a partial of; parts bound the memory."""
    profile = np.zeros(12)
    intervals = 12 * np.log2(np.arange(1, len(PARTIAL_WEIGHTS) + 1))[:, None]
    for start in range(0, len(midi), PEAKS_AT_ONCE):
        part = slice(start, start + PEAKS_AT_ONCE)
        notes = midi[part] - intervals
        in_tune = np.cos(np.pi * (notes - np.round(notes))) ** 2
        shares = np.array(PARTIAL_WEIGHTS)[:, None] * (notes > LOWEST_NOTE)
        profile += _fold(notes.ravel(), (shares * weight[part] * in_tune).ravel())
    return profile


def measure_pitch_classes(tonal: Floats) -> PitchClasses:
    """Pitch-class profiles of one channel at `TONAL_RATE_HZ`."""
    peaks = _find_peaks(tonal)
    beat_angle = np.sum(np.sqrt(peaks.magnitude) * np.exp(2j * np.pi * peaks.midi))
    tuning = float(np.angle(beat_angle) / (2 * np.pi)) if len(peaks.midi) else 0.0
    midi = peaks.midi - tuning
    audible = peaks.frame_level > peaks.frame_level.max() * FRAME_FLOOR
    weight = np.sqrt(peaks.magnitude / np.maximum(peaks.frame_top[peaks.frame], 1e-12))
    weight = weight * audible[peaks.frame]
    opening = peaks.frame < max(1, len(peaks.frame_level) // OPENING_PART)
    bass = midi < BASS_BELOW
    return PitchClasses(
        whole=_fold_partials(midi, weight),
        bass=_fold(midi[bass], weight[bass]),
        opening=_fold(midi[bass & opening], weight[bass & opening])
        + 0.5 * _fold_partials(midi[opening], weight[opening]),
        tuning_cents=100 * tuning,
    )


@functools.cache
def key_profiles() -> Doubles:
    """Profiles of all keys: 12 major from C, then 12 minor; shape (24, 12)."""
    return np.array([np.roll(profile, tonic) for profile in MODE_PROFILES for tonic in range(12)])


def key_name(index: int) -> str:
    """Name of a row of `key_profiles`."""
    return f"{PITCH_CLASSES[index % 12]} {MODES[index // 12]}"


def relative_key(name: str) -> str:
    """The key of the other mode with the same notes: "A minor" for "C major"."""
    tonic, mode = name.split(" ")
    step, other = (-3, "minor") if mode == "major" else (3, "major")
    return f"{PITCH_CLASSES[(PITCH_CLASSES.index(tonic) + step) % 12]} {other}"


def _share(profile: Doubles) -> Doubles:
    total = profile.sum()
    return profile / total if total > 0 else profile


def key_evidence(pitch_classes: PitchClasses) -> tuple[Doubles, Doubles, Doubles]:
    """The whole profile centred to unit length, and the shares of bass and opening; (12,) each."""
    centred = pitch_classes.whole - pitch_classes.whole.mean()
    norm = float(np.linalg.norm(centred))
    whole = centred / norm if norm > 1e-9 else np.zeros(12)
    return whole, _share(pitch_classes.bass), _share(pitch_classes.opening)


def estimate_key(pitch_classes: PitchClasses) -> Key | None:
    """The likeliest key; None where nothing in the sound is tonal."""
    whole, bass, opening = key_evidence(pitch_classes)
    if not whole.any():
        return None
    scores = key_profiles() @ whole + np.tile(BASS_WEIGHT * bass + OPENING_WEIGHT * opening, 2)
    chances = np.exp(SHARPNESS * (scores - scores.max()))
    best, second = (int(index) for index in np.argsort(-scores, kind="stable")[:2])
    tonal = np.clip((pitch_classes.peakiness - NOISE_PEAKINESS) / TONAL_RISE, 0.0, 1.0)
    confidence = float(tonal * chances[best] / chances.sum())
    return Key(key_name(best), confidence, key_name(second))
