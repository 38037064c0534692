"""What "sounds like this" compares: raw blocks of a sound, and their projection to 128 numbers.

The blocks are what is stored; `project` is a pure function of them, so a better projection needs no
second decode and a query may weight the aspects itself. The projection shipped in `data/` was
fitted by `benchmarks/fit_embedding.py`; its version stands beside every vector.

Invariant: no block depends on a sound's level, and an embedding is a unit vector.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from samplemind.audio.key import PitchClasses
from samplemind.audio.onsets import ATTACK_LEVEL
from samplemind.audio.pitch import Pitch
from samplemind.audio.spectrum import (
    FRAMES_PER_SECOND,
    MEL_BANDS,
    Doubles,
    Floats,
    decibels_below_peak,
)
from samplemind.audio.timbre import FrameFeatures

Block = NDArray[np.float16]
Blocks = Mapping[str, Block]

DIMENSIONS = 128
PICTURE_EDGES = (0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 27, 36, 48, 64, 86, 115, 150, 200)  # frames
PICTURE_BANDS = 32
PICTURE_FLOOR_DB = 50.0
DECAYS_DB = (6, 10, 20, 30, 40)
RHYTHM_LAGS_S = tuple(0.08 * 2 ** (step / 4) for step in range(20))  # 0.08 s to 2.15 s
CLIP_DEVIATIONS = 5.0
BLOCK_SIZES = {
    "timbre": 80,
    "spectrum": 28,
    "envelope": 10,
    "pitch": 3,
    "harmony": 12,
    "rhythm": 2 + len(RHYTHM_LAGS_S),
    "picture": (len(PICTURE_EDGES) - 1) * PICTURE_BANDS,
}
INPUT_DIMENSIONS = sum(BLOCK_SIZES.values())


@dataclass(frozen=True, slots=True)
class Projection:
    """A fitted map from all blocks to an embedding.

    Attributes:
        version: names the fit; vectors of two versions must not be compared.
        mean: of each input, float32, shape (INPUT_DIMENSIONS,).
        scale: what an input's distance from the mean is multiplied by after clipping.
        deviation: of each input; distances are clipped at `CLIP_DEVIATIONS` of it.
        supervised: matrix of the part that separates classes, shape (INPUT_DIMENSIONS, a).
        unsupervised: matrix of the part that keeps variance, shape (INPUT_DIMENSIONS, b);
            a + b = DIMENSIONS.
        centre: subtracted after the matrices, shape (DIMENSIONS,).
    """

    version: str
    mean: Floats
    deviation: Floats
    scale: Floats
    supervised: Floats
    unsupervised: Floats
    centre: Floats


def _timbre(cepstrum: Floats) -> Floats:
    change = np.diff(cepstrum, axis=0) if len(cepstrum) > 1 else np.zeros_like(cepstrum)
    return np.concatenate(
        [
            cepstrum.mean(axis=0),
            cepstrum.std(axis=0),
            np.abs(change).mean(axis=0),
            change.std(axis=0),
        ]
    )


def _spectrum(frames: FrameFeatures) -> Floats:
    columns = np.stack(
        [
            np.log2(frames.centroid_hz + 20.0),
            np.log2(frames.bandwidth_hz + 20.0),
            np.log2(frames.rolloff_hz + 20.0),
            np.log10(frames.flatness + 1e-6),
        ],
        axis=1,
    )
    share = frames.energy / max(float(frames.energy.sum()), 1e-12)
    crossings = frames.zero_crossings
    return np.concatenate(
        [
            columns.mean(axis=0),
            columns.std(axis=0),
            share @ columns,
            frames.contrast.mean(axis=0),
            frames.contrast.std(axis=0),
            [crossings.mean(), crossings.std()],
        ]
    )


def attack_frame(energy: Floats) -> int:
    """First frame at a tenth of the loudest frame's amplitude."""
    return int((energy >= ATTACK_LEVEL**2 * energy.max()).argmax())


def _envelope(energy: Floats, duration_s: float) -> Doubles:
    start, peak = attack_frame(energy), int(energy.argmax())
    levels = 10 * np.log10(np.maximum(energy[peak:] / max(float(energy.max()), 1e-12), 1e-12))
    decays = []
    for decay in DECAYS_DB:
        fallen = np.flatnonzero(levels < -decay)
        decays.append(int(fallen[0]) if len(fallen) else len(levels))
    share = energy / max(float(energy.sum()), 1e-12)
    position = np.arange(len(energy)) - start
    centre = max(float(share @ position), 0.0)
    spread = math.sqrt(max(float(share @ np.square(position - centre)), 0.0))
    frames = np.array([*decays, peak - start, centre, spread])
    amplitude = np.sqrt(energy)
    crest = float(amplitude.max() / max(float(amplitude.mean()), 1e-12))
    return np.concatenate([np.log2(1 + frames), [math.log2(max(duration_s, 1e-3)), crest]])


def _pitch(pitch_classes: PitchClasses, pitch: Pitch | None) -> Doubles:
    octaves = math.log2(pitch.frequency_hz / 110) if pitch else 0.0
    confidence = pitch.confidence if pitch else 0.0
    return np.array([pitch_classes.peakiness, octaves * confidence, confidence])


def _harmony(pitch_classes: PitchClasses) -> Doubles:
    norm = float(np.linalg.norm(pitch_classes.whole))
    return pitch_classes.whole / norm if norm > 0 else pitch_classes.whole


def _rhythm(correlation: Doubles, onset_count: int, duration_s: float) -> Doubles:
    """Onsets and the periodicity of the onset envelope at logarithmically spaced lags."""
    lags = np.array(RHYTHM_LAGS_S) * FRAMES_PER_SECOND
    heights = np.interp(lags, np.arange(len(correlation)), correlation)
    heights[lags >= len(correlation) - 1] = 0.0
    rate = onset_count / max(duration_s, 0.1)
    return np.concatenate([[math.log2(1 + onset_count), math.log2(1 + rate)], heights])


def _picture(mel_power: Floats, start: int) -> Floats:
    """Log-mel levels in logarithmically growing slots of time from the attack, 0 at the peak."""
    pairs = mel_power.reshape(len(mel_power), PICTURE_BANDS, MEL_BANDS // PICTURE_BANDS)
    levels = decibels_below_peak(pairs.mean(axis=2), PICTURE_FLOOR_DB)[start:]
    picture = np.full((len(PICTURE_EDGES) - 1, PICTURE_BANDS), -PICTURE_FLOOR_DB, np.float32)
    stop = min(PICTURE_EDGES[-1], len(levels))
    starts = [edge for edge in PICTURE_EDGES if edge < stop]
    lengths = np.diff([*starts, stop])
    picture[: len(starts)] = np.add.reduceat(levels[:stop], starts, axis=0) / lengths[:, None]
    return picture.ravel()


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything the blocks are made of, measured once for all purposes.

    Attributes:
        frames: at `spectrum.ANALYSIS_RATE_HZ`.
        cepstrum: `timbre.mel_cepstrum` of them.
        onset_correlation: `tempo.autocorrelate` of the onset envelope.
        onset_count: onsets found.
        pitch_classes: of the whole sound.
        pitch: fundamental, where one was looked for and found.
        duration_s: of the sound.
    """

    frames: FrameFeatures
    cepstrum: Floats
    onset_correlation: Doubles
    onset_count: int
    pitch_classes: PitchClasses
    pitch: Pitch | None
    duration_s: float


def make_blocks(evidence: Evidence) -> dict[str, Block]:
    """The raw blocks of a sound, float16, with the sizes of `BLOCK_SIZES`, all finite."""
    energy = evidence.frames.energy
    blocks: dict[str, Floats | Doubles] = {
        "timbre": _timbre(evidence.cepstrum),
        "spectrum": _spectrum(evidence.frames),
        "envelope": _envelope(energy, evidence.duration_s),
        "pitch": _pitch(evidence.pitch_classes, evidence.pitch),
        "harmony": _harmony(evidence.pitch_classes),
        "rhythm": _rhythm(evidence.onset_correlation, evidence.onset_count, evidence.duration_s),
        "picture": _picture(evidence.frames.mel_power, attack_frame(energy)),
    }
    return {name: values.astype(np.float16) for name, values in blocks.items()}


def join_blocks(blocks: Blocks) -> Floats:
    """All blocks in the order of `BLOCK_SIZES` as one float32 vector."""
    return np.concatenate([blocks[name] for name in BLOCK_SIZES]).astype(np.float32)


def standardise(joined: Floats, projection: Projection) -> Floats:
    """Distances from the mean, clipped and scaled; works on one vector or on rows."""
    limit = CLIP_DEVIATIONS * projection.deviation
    distance = np.clip(joined - projection.mean, -limit, limit)
    return np.asarray(distance * projection.scale)


def _unit(vector: Floats) -> Floats:
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm > 0 else vector


def project(blocks: Blocks, projection: Projection | None = None) -> Floats:
    """The embedding of a sound from its stored blocks.

    Args:
        blocks: as `make_blocks` gives them.
        projection: the shipped one when None.

    Returns:
        float32, shape (DIMENSIONS,), a unit vector: cosine similarity compares two of them.
    """
    fitted = projection or shipped_projection()
    inputs = standardise(join_blocks(blocks), fitted)
    classes = fitted.supervised.shape[1]
    supervised = _unit(inputs @ fitted.supervised - fitted.centre[:classes])
    unsupervised = _unit(inputs @ fitted.unsupervised - fitted.centre[classes:])
    return _unit(np.concatenate([supervised, unsupervised])).astype(np.float32)


@functools.cache
def shipped_projection() -> Projection:
    """The projection in `data/projection.npz`."""
    file = resources.files("samplemind.audio") / "data" / "projection.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        numbers = {name: stored[name].astype(np.float32) for name in stored if name != "version"}
        return Projection(version=str(stored["version"]), **numbers)
