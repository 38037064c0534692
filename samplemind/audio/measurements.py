"""What goes into a measurement and what comes out of it; values only.

Invariant: every number in `Measurements` is finite, and `as_dict` is ready for JSON.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from samplemind.audio.embedding import Block
from samplemind.audio.hints import Kind
from samplemind.audio.loudness import LoudnessKind
from samplemind.audio.spectrum import Floats


@dataclass(frozen=True, slots=True)
class Sound:
    """What decoding hands over: finite samples with |x| <= 8, not silent, at least 20 ms.

    Attributes:
        samples: float32, shape (frames, channels); a window of at most about 120 s.
        sample_rate_hz: of the samples.
        duration_s: of the whole file, which may be longer than the window.
        whole: the samples hold the whole file, so their length is evidence of its tempo.
    """

    samples: Floats
    sample_rate_hz: int
    duration_s: float
    whole: bool


@dataclass(frozen=True, slots=True, eq=False)
class Measurements:
    """Everything measured in one sound; confidences run from 0 to 1.

    Fields that a hint may have changed have a `measured_…` twin, which no hint ever touches, and
    `hints_used` names the fields that one did change.

    Attributes:
        loudness_lufs: ITU-R BS.1770-4, -70 at the least.
        loudness_kind: gated over blocks, or the whole of a sound shorter than 0.4 s.
        rms_dbfs: over every sample of every channel, against 1.0.
        tempo_bpm: None for a one-shot.
        tempo_candidate_bpm: the guess for a loop, and for a sound that may yet be one; None where
            nothing repeats or the sound is clearly a one-shot.
        tempo_alternative_bpm: the best-scored clearly different tempo.
        key: "F# minor"; None below `measure.KEY_SHOWN_FROM`.
        key_candidate: the guess even then.
        key_relative: the key of the other mode with the candidate's notes.
        root_note: "A2", of a one-shot whose pitch is clear.
        onset_rate_hz: onsets a second.
        tuning_cents: of the sound's A against 440 Hz, -50..50.
        spectral: mean and standard deviation over frames, keys "centroid_hz_mean", ...
        mfcc_mean, mfcc_std: float32, shape (20,).
        blocks: raw blocks, float16, by the names of `embedding.BLOCK_SIZES`.
        embedding: float32, shape (128,), a unit vector.
        embedding_version: of the projection; vectors of two versions must not be compared.
    """

    loudness_lufs: float
    loudness_kind: LoudnessKind
    rms_dbfs: float
    kind: Kind
    kind_confidence: float
    measured_kind: Kind
    tempo_bpm: float | None
    tempo_confidence: float
    tempo_alternative_bpm: float | None
    tempo_candidate_bpm: float | None
    measured_tempo_bpm: float | None
    key: str | None
    key_confidence: float
    key_relative: str | None
    key_candidate: str | None
    key_runner_up: str | None
    measured_key: str | None
    root_note: str | None
    root_note_confidence: float
    root_frequency_hz: float | None
    tuning_cents: float
    onset_count: int
    onset_rate_hz: float
    spectral: Mapping[str, float]
    mfcc_mean: Floats
    mfcc_std: Floats
    blocks: Mapping[str, Block]
    embedding: Floats
    embedding_version: str
    hints_used: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The same as plain numbers, strings, lists and dicts, ready for JSON."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [float(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Kind | LoudnessKind) else value
