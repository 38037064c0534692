"""Sounds with known properties, for the tests of this folder."""

import numpy as np
from numpy.typing import NDArray

from samplemind.audio.measure import Sound

RATE = 44_100


def sound(samples: NDArray[np.floating], rate: int = RATE, *, whole: bool = True) -> Sound:
    shaped = np.asarray(samples, dtype=np.float32)
    if shaped.ndim == 1:
        shaped = shaped[:, None]
    return Sound(shaped, rate, len(shaped) / rate, whole)


def seconds(length_s: float, rate: int = RATE) -> NDArray[np.float64]:
    return np.arange(round(length_s * rate)) / rate


def sine(
    frequency_hz: float, length_s: float, peak_dbfs: float = 0.0, rate: int = RATE
) -> NDArray[np.float64]:
    peak = 10 ** (peak_dbfs / 20)
    return np.asarray(peak * np.sin(2 * np.pi * frequency_hz * seconds(length_s, rate)))


def note(midi: float, length_s: float = 0.8, partials: int = 8) -> NDArray[np.float64]:
    """A plucked note: partials that fall off and die away."""
    t = seconds(length_s)
    frequency = 440 * 2 ** ((midi - 69) / 12)
    numbers = np.arange(1, partials + 1)
    waves = np.sin(2 * np.pi * frequency * np.outer(numbers, t)) / numbers[:, None]
    return np.asarray(0.2 * waves.sum(axis=0) * np.exp(-2 * t) * np.minimum(1, t / 0.003))


def chord_progression(tonic: int, *, minor: bool) -> NDArray[np.float64]:
    """Tonic, subdominant, dominant, tonic; the tonic is 0 for C."""
    mode = (0, 3, 7) if minor else (0, 4, 7)
    roots = [(0, mode), (5, mode), (7, (0, 4, 7)), (0, mode)]
    chords = []
    for step, steps in roots:
        bass = note(36 + tonic + step, 0.7)
        chords.append(bass + sum(note(48 + tonic + step + third, 0.7) for third in steps))
    return np.concatenate(chords)


def click_track(bpm: float, beats: int) -> NDArray[np.float64]:
    track = np.zeros(round(beats * 60 / bpm * RATE))
    noise = np.random.default_rng(1).normal(size=2000) * np.exp(-np.arange(2000) / 200)
    for beat in range(beats):
        start = round(beat * 60 / bpm * RATE)
        piece = noise[: len(track) - start]
        track[start : start + len(piece)] += (1.0 if beat % 4 == 0 else 0.6) * piece
    return 0.3 * track


def hit(seed: int, length_s: float = 0.6, fall: float = 12.0) -> NDArray[np.float64]:
    """A tone and noise that die away; neighbours in `seed` differ in every parameter."""
    random = np.random.default_rng(seed)
    t = seconds(length_s)
    pitch = np.exp(random.uniform(np.log(60), np.log(2000)))
    body = np.sin(2 * np.pi * pitch * t * (1 + np.exp(-40 * t)))
    noise = random.normal(size=len(t)) * random.uniform(0, 0.6)
    return np.asarray(0.4 * (body + noise) * np.exp(-fall * random.uniform(0.4, 2) * t))
