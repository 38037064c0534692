"""Loops with a known tempo, key and kind: drum patterns, and chords, bass lines and arpeggios.

Written for the accuracy figures and as a set to tune on; the measurement code knows nothing of it.
Deterministic for a seeded generator; nothing is read from disk.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.audio import drums
from benchmarks.audio.drums import RATE, Random, Sound, between, decay, time_s

MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
# Scale degrees of the chords of a bar each.
PROGRESSIONS = {
    "major": ((0, 4, 5, 3), (0, 3, 4, 0), (0, 5, 1, 4), (0, 2, 3, 4), (5, 3, 0, 4), (0, 0, 0, 0)),
    "minor": ((0, 5, 2, 6), (0, 3, 4, 0), (0, 6, 5, 4), (0, 3, 0, 4), (0, 0, 3, 4), (0, 0, 0, 0)),
}
PITCHES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")

# Sixteen steps a bar, "x" a hit, "o" a soft one; twelve where the feel is triple.
PATTERNS: dict[str, tuple[tuple[str, str], ...]] = {
    "four": (
        ("kick", "x...x...x...x..."),
        ("clap", "....x.......x..."),
        ("open_hat", "..x...x...x...x."),
        ("closed_hat", "x.o.x.o.x.o.x.o."),
    ),
    "rock": (
        ("kick", "x.......x.x....."),
        ("snare", "....x.......x..."),
        ("closed_hat", "x.x.x.x.x.x.x.x."),
    ),
    "hiphop": (
        ("kick", "x..x......x..x.."),
        ("snare", "....x..o....x..o"),
        ("closed_hat", "x.x.x.x.x.x.xoxo"),
    ),
    "breakbeat": (
        ("kick", "x.x.......xx...."),
        ("snare", "....x..o.o..x..o"),
        ("ride", "x.x.x.x.x.x.x.x."),
    ),
    "trap": (
        ("kick", "x.....x...x....."),
        ("snare", "........x......."),
        ("closed_hat", "x.x.x.x.x.xxx.x."),
    ),
    "two_step": (
        ("kick", "x.........x....."),
        ("snare", "....x.......x..."),
        ("closed_hat", "..x.o.x..ox.o.x."),
        ("shaker", "xoxoxoxoxoxoxoxo"),
    ),
    "dembow": (
        ("kick", "x...x...x...x..."),
        ("rim", "...x..x....x..x."),
        ("shaker", "x.x.x.x.x.x.x.x."),
    ),
    "bossa": (
        ("kick", "x..xx..xx..xx..x"),
        ("rim", "x..x..x...x..x.."),
        ("closed_hat", "xoxoxoxoxoxoxoxo"),
    ),
    "conga": (
        ("conga", "o.x.o.xxo.x.o.xx"),
        ("shaker", "xoxoxoxoxoxoxoxo"),
        ("cowbell", "x...x...x...x..."),
    ),
    "half_time": (
        ("kick", "x......x........"),
        ("snare", "........x......."),
        ("ride", "x...x...x...x..."),
    ),
    "shuffle": (
        ("kick", "x.....x....."),
        ("snare", "...x.....x.."),
        ("closed_hat", "x.xx.xx.xx.x"),
    ),
    "hats": (("closed_hat", "xoxoxoxoxoxoxoxo"), ("open_hat", "..x...x...x...x.")),
}


@dataclass(frozen=True, slots=True)
class Phrase:
    """A loop and what is true of it; `key` is none for drums."""

    samples: NDArray[np.float32]  # (frames, 1) at drums.RATE
    tempo_bpm: float
    key: str | None
    style: str


def place(track: Sound, start_s: float, sound: Sound) -> None:
    start = max(0, int(start_s * RATE))
    stop = min(len(track), start + len(sound))
    if stop > start:
        track[start:stop] += sound[: stop - start]


def choose_tempo(random: Random) -> float:
    return float(round(between(random, 75, 168), int(random.choice([0, 0, 0, 1]))))


def cut(random: Random, track: Sound) -> NDArray[np.float32]:
    """Two thirds keep their whole bars, the rest lose an end that is no whole beat."""
    if random.random() < 1 / 3:
        track = track[: int(len(track) * random.uniform(0.7, 0.97))]
    peak = float(np.abs(track).max())
    return np.asarray(0.8 * track[:, None] / peak, dtype=np.float32)


def drum_loop(random: Random) -> Phrase:
    """One to four bars of a pattern on a synthesised kit, with swing, jitter and variations."""
    style = str(random.choice(list(PATTERNS)))
    bpm, bars = choose_tempo(random), int(random.choice([1, 2, 2, 4]))
    bar_s = 4 * 60 / bpm
    track = np.zeros(round(bars * bar_s * RATE))
    swing = float(random.choice([0, 0, random.uniform(0.05, 0.33)]))
    jitter_s = between(random, 0.0005, 0.006)
    for name, steps in PATTERNS[style]:
        sound = drums.record(random, drums.DRUMS[name](random))
        sound = sound / np.abs(sound).max() * 10 ** (random.uniform(-14, 0) / 20)
        step_s = bar_s / len(steps)
        for bar in range(bars):
            for step, mark in enumerate(steps):
                if mark == "." or random.random() < 0.06:
                    continue
                late = swing * step_s if len(steps) == 16 and step % 2 else 0.0
                when = bar * bar_s + step * step_s + late + random.normal(0, jitter_s)
                place(track, when, (0.35 if mark == "o" else 1) * random.uniform(0.8, 1) * sound)
    return Phrase(cut(random, track), bpm, None, style)


def tone(random: Random, midi: float, seconds: float, colour: Sound, fall_s: float) -> Sound:
    """A note of harmonic partials with a soft start and end; `colour` is the partials' levels."""
    t = time_s(seconds)
    frequency = 440 * 2 ** ((midi - 69) / 12)
    numbers = np.arange(1, len(colour) + 1)
    audible = numbers * frequency < RATE / 2.2
    phases = random.uniform(0, 6.28, len(numbers))
    waves = np.sin(2 * np.pi * frequency * numbers[audible, None] * t + phases[audible, None])
    brightness = decay(t, fall_s)[None, :] ** (0.25 * np.sqrt(numbers[audible]))[:, None]
    sound = colour[audible] @ (waves * brightness)
    edge = np.minimum(1, np.minimum(t / 0.005, (seconds - t) / 0.01))
    return np.asarray(sound * np.clip(edge, 0, 1))


def choose_colour(random: Random) -> Sound:
    count = int(random.integers(4, 16))
    numbers = np.arange(1, count + 1)
    colour = numbers ** -random.uniform(0.6, 2.2) * random.uniform(0.3, 1, count)
    if random.random() < 0.3:
        colour[1::2] *= 0.1
    return np.asarray(colour)


def chord_notes(tonic: int, scale: Sequence[int], degree: int) -> list[int]:
    return [tonic + scale[(degree + step) % 7] + 12 * ((degree + step) // 7) for step in (0, 2, 4)]


def _chords(random: Random, notes: list[int], beat_s: float) -> list[tuple[float, int, float]]:
    strokes = [(0.0,), (0.0, 2.0), (0.0, 1.5, 3.0), (0.0, 1.0, 2.0, 3.0)]
    times = strokes[int(random.integers(len(strokes)))]
    length = (4 / len(times)) * beat_s * random.uniform(0.5, 1)
    low = [(0.0, notes[0] - 12, 4 * beat_s)] if random.random() < 0.5 else []
    return low + [(when * beat_s, note, length) for when in times for note in notes]


def _bass(random: Random, notes: list[int], beat_s: float) -> list[tuple[float, int, float]]:
    rhythm = "x.xxx.x.", "x..xx.x.", "xxxxxxxx", "x...x...", "x.x.x.xx"
    steps = rhythm[int(random.integers(len(rhythm)))]
    played = []
    for step, mark in enumerate(steps):
        if mark == "x":
            note = notes[0] if step == 0 or random.random() < 0.6 else int(random.choice(notes))
            octave = 12 * int(random.choice([0, 0, 1]))
            played.append((step * beat_s / 2, note - 24 + octave, 0.45 * beat_s))
    return played


def _arpeggio(random: Random, notes: list[int], beat_s: float) -> list[tuple[float, int, float]]:
    order = [*notes, notes[0] + 12]
    if random.random() < 0.5:
        order = [*notes, notes[1]]
    division = int(random.choice([2, 4]))
    return [
        (step * beat_s / division, order[step % len(order)], 0.9 * beat_s / division)
        for step in range(4 * division)
    ]


PARTS: dict[str, Callable[[Random, list[int], float], list[tuple[float, int, float]]]] = {
    "chords": _chords,
    "bass": _bass,
    "arpeggio": _arpeggio,
}


def pitched_loop(random: Random) -> Phrase:
    """Four bars of chords, bass or arpeggio in a key, each bar's part alike."""
    style = str(random.choice(list(PARTS)))
    mode = str(random.choice(["major", "minor"]))
    pitch = int(random.integers(12))
    bpm = choose_tempo(random)
    beat_s = 60 / bpm
    options = PROGRESSIONS[mode]
    degrees = options[int(random.integers(len(options)))]
    scale = MAJOR if mode == "major" else MINOR
    track = np.zeros(round(16 * beat_s * RATE))
    colour, fall_s = choose_colour(random), between(random, 0.4, 4)
    part_seed = int(random.integers(2**31))
    cents = random.normal(0, 8)
    for bar, degree in enumerate(degrees):
        notes = chord_notes(48 + pitch, scale, degree)
        part = PARTS[style](np.random.default_rng(part_seed), notes, beat_s)
        for when, note, length in part:
            sound = tone(random, note + cents / 100, length, colour, fall_s)
            place(track, bar * 4 * beat_s + when, random.uniform(0.8, 1) * sound)
    return Phrase(cut(random, track), bpm, f"{PITCHES[pitch]} {mode}", style)


def wave(samples: NDArray[Any]) -> NDArray[np.float32]:
    """Any one-channel sound as float32, shape (frames, 1)."""
    return np.asarray(samples, dtype=np.float32).reshape(-1, 1)
