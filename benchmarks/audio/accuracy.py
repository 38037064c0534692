"""How right tempo, key, root note, kind and embedding are; MFCC means stand beside the embedding.

What was fitted (key profiles, projection) never read a groove or a kit of these figures; the
synthesised loops are the fitted generator's with other seeds, so they are the easier test. Four
constants were chosen with an eye on such sets as well: the centre of the tempo prior and the
confidence from which a key is shown (grooves in every metre, drawn anew here), the level of a
one-shot's tail and the weights of the embedding's blocks (half of the kits).
"""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from benchmarks.audio import drums, grooves, kits, phrases
from benchmarks.row import Row, row
from samplemind.audio.hints import Kind
from samplemind.audio.measure import Measurements, Sound, measure

HELD_OUT_SEED = 50_000
SAME_TEMPO = 0.04
NEIGHBOURS = 5
SYNTHESISED_KITS = 12
SOURCE_SYNTHESISED, SOURCE_GROOVES = "synthesised", "mma and fluidsynth"


def measure_samples(samples: NDArray[np.float32], rate: int = drums.RATE) -> Measurements:
    return measure(Sound(samples, rate, len(samples) / rate, whole=True))


def measure_file(path: Path, longest_s: float = 30.0) -> Measurements:
    with soundfile.SoundFile(path) as file:
        samples = file.read(int(longest_s * file.samplerate), dtype="float32", always_2d=True)
        length_s = file.frames / file.samplerate
        return measure(Sound(samples, file.samplerate, length_s, len(samples) == file.frames))


def percent(truths: Sequence[bool]) -> float:
    return 100 * sum(truths) / max(len(truths), 1)


def same_tempo(measured_bpm: float | None, true_bpm: float) -> bool:
    return measured_bpm is not None and abs(math.log(measured_bpm / true_bpm)) < SAME_TEMPO


def share(name: str, truths: Sequence[bool], least: float | None = None) -> Row:
    """A row of a percentage, with its goal where one is set."""
    value = percent(truths)
    goal = None if least is None else f"≥ {least:g}"
    met = None if least is None else value >= least
    return row(f"{name}, n={len(truths)}", value, "%", goal=goal, met=met)


def loop_rows(count: int) -> list[Row]:
    rhythms, pitched = [], []
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + count):
        rhythm = phrases.drum_loop(np.random.default_rng(seed))
        rhythms.append((rhythm, measure_samples(rhythm.samples)))
        phrase = phrases.pitched_loop(np.random.default_rng(seed))
        pitched.append((phrase, measure_samples(phrase.samples)))
    right = [
        [same_tempo(found.tempo_bpm, truth.tempo_bpm) for truth, found in pairs]
        for pairs in (rhythms, pitched)
    ]
    loops = [found.kind is Kind.LOOP for _, found in rhythms + pitched]
    keys = [found.key_candidate == truth.key for truth, found in pitched]
    shown = [found.key == truth.key for truth, found in pitched if found.key]
    drums_shown = [found.key is not None for _, found in rhythms]
    return [
        share(f"tempo within 4 % (accuracy 1), drum loops, {SOURCE_SYNTHESISED}", right[0], 75),
        share(f"tempo within 4 % (accuracy 1), pitched loops, {SOURCE_SYNTHESISED}", right[1], 90),
        share(f"key exact, pitched loops, {SOURCE_SYNTHESISED}", keys, 58),
        share(f"key exact where shown, pitched loops, {SOURCE_SYNTHESISED}", shown),
        share(f"drum loops that show a key, {SOURCE_SYNTHESISED}", drums_shown),
        share(f"loops called loops, {SOURCE_SYNTHESISED}", loops),
    ]


def groove_rows(count: int) -> list[Row]:
    if not grooves.can_render():
        return []
    tempi, keys = [], []
    with tempfile.TemporaryDirectory() as folder:
        for groove in grooves.render_grooves(Path(folder), count):
            with soundfile.SoundFile(groove.path) as file:
                frames = round(groove.length_s * file.samplerate)
                samples = file.read(frames, dtype="float32", always_2d=True, fill_value=0.0)
                found = measure_samples(samples, file.samplerate)
            tempi.append(same_tempo(found.tempo_bpm, groove.tempo_bpm))
            keys.append(found.key_candidate == groove.key)
    return [
        share(f"tempo within 4 % (accuracy 1), grooves, {SOURCE_GROOVES}", tempi, 75),
        share(f"key exact, grooves, {SOURCE_GROOVES}", keys, 58),
    ]


def root_note_rows(count: int) -> list[Row]:
    exact, shown = [], []
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + count):
        random = np.random.default_rng(seed)
        midi = int(random.integers(31, 85))
        colour, fall_s = phrases.choose_colour(random), drums.between(random, 0.6, 3)
        sound = phrases.tone(random, midi + random.normal(0, 0.08), 1.0, colour, fall_s)
        found = measure_samples(phrases.wave(sound / np.abs(sound).max()))
        name = f"{phrases.PITCHES[midi % 12]}{midi // 12 - 1}"
        exact.append(found.root_note == name)
        if found.root_note is not None:
            shown.append(found.root_note == name)
    return [
        share(f"root note with octave, {SOURCE_SYNTHESISED}", exact),
        share(f"root note with octave where shown, {SOURCE_SYNTHESISED}", shown),
    ]


def precision_at_5(vectors: NDArray[Any], labels: NDArray[Any], sources: NDArray[Any]) -> float:
    """Mean share of a hit's nearest five, its own kit excluded, that are of its class.

    Hits whose class has fewer than five others in other kits are not asked for.
    """
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = unit @ unit.T
    foreign = sources[:, None] != sources[None, :]
    likeness[~foreign] = -np.inf
    nearest = np.argsort(-likeness, axis=1)[:, :NEIGHBOURS]
    possible = (foreign & (labels[:, None] == labels[None, :])).sum(axis=1) >= NEIGHBOURS
    return float(100 * (labels[nearest] == labels[:, None])[possible].mean())


def same_class_row(
    name: str,
    vectors: NDArray[Any],
    means: NDArray[Any],
    labels: NDArray[Any],
    sources: NDArray[Any],
) -> Row:
    """The embedding beside MFCC means, standardised over the sounds asked for."""
    standard = (means - means.mean(axis=0)) / means.std(axis=0)
    value = precision_at_5(vectors, labels, sources)
    peer = precision_at_5(standard, labels, sources)
    return row(
        f"same class among the nearest five, {name}, n={len(labels)}",
        value,
        "%",
        peer=("MFCC means", peer),
        ratio=value / peer,
        goal="≥ 68",
        met=value >= 68,
    )


def embedding_rows() -> list[Row]:
    hits = kits.installed_hits()
    if hits:
        source = f"{len({hit.kit for hit in hits})} hydrogen kits never fitted on"
        found = [measure_file(hit.path) for hit in hits]
        named = [(hit.kit, hit.label) for hit in hits]
    else:
        # Without recorded kits, each seed stands for a kit: easier, and said so.
        source = "synthesised kits of unseen seeds"
        named = [
            (str(seed), name)
            for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + SYNTHESISED_KITS)
            for name in drums.DRUMS
        ]
        found = [
            measure_samples(
                phrases.wave(drums.hit(name, np.random.default_rng([int(seed), len(name)])))
            )
            for seed, name in named
        ]
    sources, labels = (np.array(column) for column in zip(*named, strict=True))
    vectors = np.array([measurements.embedding for measurements in found])
    means = np.array([measurements.mfcc_mean[:13] for measurements in found])
    shots = [measurements.kind is Kind.ONE_SHOT for measurements in found]
    chosen_on = np.isin(sources, list(kits.CHOSEN_ON))
    halves = [
        (f"{source}, candidates from all", np.ones(len(found), dtype=bool)),
        ("the other half of the kits, candidates from it", ~chosen_on),
        ("one half of the kits, candidates from it", chosen_on),
    ]
    return [
        *(
            same_class_row(name, vectors[half], means[half], labels[half], sources[half])
            for name, half in (halves if hits else halves[:1])
        ),
        share("one-shots called one-shots, the same sounds", shots),
    ]


def rows(*, quick: bool) -> list[Row]:
    return [
        *loop_rows(30 if quick else 120),
        *groove_rows(10 if quick else 40),
        *root_note_rows(40 if quick else 200),
        *embedding_rows(),
    ]
