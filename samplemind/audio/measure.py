"""From samples to everything this package knows about a sound.

`measure` is a pure function: the same sound gives the same numbers, whatever the order in which
files arrive. It never raises for a sound that keeps `Sound`'s promises and never returns a number
that is not finite.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samplemind.audio.embedding import (
    Block,
    Evidence,
    make_blocks,
    project,
    shipped_projection,
)
from samplemind.audio.hints import Hints, Kind
from samplemind.audio.key import (
    TONAL_RATE_HZ,
    PitchClasses,
    estimate_key,
    measure_pitch_classes,
    relative_key,
)
from samplemind.audio.kind import KindGuess, guess_kind, tail_level_db
from samplemind.audio.loudness import LoudnessKind, measure_loudness, measure_rms_dbfs
from samplemind.audio.measurements import Measurements, Sound
from samplemind.audio.onsets import begins_at_once, find_onsets, onset_matrix
from samplemind.audio.pitch import Pitch, estimate_pitch, note_name
from samplemind.audio.spectrum import (
    ANALYSIS_RATE_HZ,
    FRAMES_PER_SECOND,
    Doubles,
    Floats,
    decibels_below_peak,
    resample,
)
from samplemind.audio.tempo import Length, Tempo, autocorrelate, estimate_tempo
from samplemind.audio.ties import SUREST_TIE, break_ties
from samplemind.audio.timbre import (
    FrameFeatures,
    mean_and_deviation,
    measure_frames,
    mel_cepstrum,
)

__all__ = ["Hints", "Kind", "LoudnessKind", "Measurements", "Sound", "measure", "measure_blocks"]

ONSET_FLOOR_DB = 80.0
AUDIBLE_FLOOR = 10 ** (-55 / 20)  # of the peak
CANCELLED_SHARE = 0.05  # a mix this much weaker than its channels has lost them to opposite phase
LONGEST_PITCHED_S = 8.0
KEY_SHOWN_FROM = 0.35  # four of five shown keys are right, one drum loop in ten shows one
ROOT_SHOWN_FROM = 0.6


@dataclass(frozen=True, slots=True)
class _Findings:
    """What one pass over a sound finds, before it is put into words."""

    frames: FrameFeatures
    cepstrum: Floats
    onsets: NDArray[np.intp]
    onset_correlation: Doubles
    tempo: Tempo | None
    kind: KindGuess
    pitch_classes: PitchClasses
    pitch: Pitch | None
    window_s: float


def measure(sound: Sound, *, hints: Hints | None = None) -> Measurements:
    """Measure a sound.

    Args:
        sound: decoded samples that keep the promises of `Sound`.
        hints: what the file's name says; it may only break ties, as `samplemind.audio.ties` says.

    Returns:
        The measurements; `measured_kind`, `measured_tempo_bpm` and `measured_key` are what they
        are without hints.
    """
    measured = _describe(sound, _find(sound))
    return measured if hints is None else break_ties(measured, hints)


def measure_blocks(sound: Sound) -> dict[str, Block]:
    """Only the raw blocks of a sound, which need no fitted projection."""
    return _blocks(_find(sound))


def mix_down(samples: Floats) -> Floats:
    """One channel with its peak at 1: the mean of all, or the loudest where they cancel.

    Args:
        samples: float32, shape (frames, channels).
    """
    channels = samples.shape[1]
    mono = samples @ np.full(channels, 1 / channels, dtype=np.float32)
    energy = float(samples.ravel() @ samples.ravel()) / channels
    if float(mono @ mono) < CANCELLED_SHARE * energy:
        mono = samples[:, int(np.einsum("fc,fc->c", samples, samples).argmax())].copy()
    peak = max(float(mono.max()), -float(mono.min()))
    if peak > 0:
        mono /= peak
    return mono


def _audible_s(mono: Floats, sample_rate_hz: int) -> float:
    audible = (mono > AUDIBLE_FLOOR) | (mono < -AUDIBLE_FLOOR)
    if not audible.any():
        return 0.0
    first, after_last = int(audible.argmax()), len(audible) - int(audible[::-1].argmax())
    return (after_last - 1 - first) / sample_rate_hz


def _spectral_statistics(frames: FrameFeatures) -> dict[str, float]:
    columns = {
        "centroid_hz": frames.centroid_hz,
        "bandwidth_hz": frames.bandwidth_hz,
        "rolloff_hz": frames.rolloff_hz,
        "flatness": frames.flatness,
        "contrast": frames.contrast,
        "zero_crossing_rate": frames.zero_crossings,
    }
    statistics = {}
    for name, values in columns.items():
        statistics[f"{name}_mean"], statistics[f"{name}_std"] = mean_and_deviation(values)
    return statistics


def _find(sound: Sound) -> _Findings:
    rate = sound.sample_rate_hz
    mono = mix_down(sound.samples)
    window_s = len(mono) / rate
    frames = measure_frames(resample(mono, rate, ANALYSIS_RATE_HZ))
    tonal = resample(mono, rate, TONAL_RATE_HZ)

    rises = onset_matrix(decibels_below_peak(frames.mel_power, ONSET_FLOOR_DB))
    envelope = rises.mean(axis=1)
    onsets = find_onsets(envelope)
    correlation = autocorrelate(envelope)
    kind = guess_kind(sound.duration_s, len(onsets), tail_level_db(frames.energy))
    tempo = None
    if kind.kind is Kind.LOOP or kind.confidence <= SUREST_TIE:
        length = Length(window_s, _audible_s(mono, rate)) if sound.whole else None
        tempo = estimate_tempo(rises, correlation, len(onsets), length)
    return _Findings(
        frames=frames,
        cepstrum=mel_cepstrum(frames.mel_power),
        onsets=onsets,
        onset_correlation=correlation,
        tempo=tempo,
        kind=kind,
        pitch_classes=measure_pitch_classes(tonal),
        pitch=estimate_pitch(tonal) if window_s <= LONGEST_PITCHED_S else None,
        window_s=window_s,
    )


def _blocks(found: _Findings) -> dict[str, Block]:
    return make_blocks(
        Evidence(
            frames=found.frames,
            cepstrum=found.cepstrum,
            onset_correlation=found.onset_correlation,
            onset_count=len(found.onsets),
            pitch_classes=found.pitch_classes,
            pitch=found.pitch,
            duration_s=found.window_s,
        )
    )


def _describe(sound: Sound, found: _Findings) -> Measurements:
    kind, tempo, key = found.kind, found.tempo, estimate_key(found.pitch_classes)
    loudness = measure_loudness(sound.samples, sound.sample_rate_hz)
    loop_bpm = tempo.bpm if tempo and kind.kind is Kind.LOOP else None
    shown_key = key.name if key and key.confidence >= KEY_SHOWN_FROM else None
    root = found.pitch if kind.kind is Kind.ONE_SHOT else None
    clear_root = root if root and root.confidence >= ROOT_SHOWN_FROM else None
    onset_count = len(found.onsets) + begins_at_once(found.frames.energy, found.onsets)
    blocks = _blocks(found)
    return Measurements(
        loudness_lufs=loudness.lufs,
        loudness_kind=loudness.kind,
        rms_dbfs=measure_rms_dbfs(sound.samples),
        kind=kind.kind,
        kind_confidence=kind.confidence,
        measured_kind=kind.kind,
        tempo_bpm=loop_bpm,
        tempo_confidence=tempo.confidence if tempo else 0.0,
        tempo_alternative_bpm=tempo.alternative_bpm if tempo else None,
        tempo_candidate_bpm=tempo.bpm if tempo else None,
        measured_tempo_bpm=loop_bpm,
        key=shown_key,
        key_confidence=key.confidence if key else 0.0,
        key_relative=relative_key(key.name) if key else None,
        key_candidate=key.name if key else None,
        key_runner_up=key.runner_up if key else None,
        measured_key=shown_key,
        root_note=note_name(clear_root.frequency_hz) if clear_root else None,
        root_note_confidence=root.confidence if root else 0.0,
        root_frequency_hz=clear_root.frequency_hz if clear_root else None,
        tuning_cents=found.pitch_classes.tuning_cents,
        onset_count=onset_count,
        onset_rate_hz=onset_count * FRAMES_PER_SECOND / len(found.frames),
        spectral=_spectral_statistics(found.frames),
        mfcc_mean=found.cepstrum.mean(axis=0),
        mfcc_std=found.cepstrum.std(axis=0),
        blocks=blocks,
        embedding=project(blocks),
        embedding_version=shipped_projection().version,
    )
