"""Sounds a second, decoding included and storage excluded, with one and two processes.

The peer is librosa as its tutorials use it: one call a feature, on the same files, in one process,
in the same run; it stands beside our figure of one process.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.audio import drums, phrases
from benchmarks.row import Row, row

ONE_SHOT_S, LOOP_S = 1.2, 8.0
GOALS = {"one-shots": (240.0, 15.0), "loops": (40.0, 10.0)}


def _save(path: Path, samples: Any) -> Path:
    """Two channels that differ, 16 bit: what a sample library holds."""
    delayed = np.concatenate([np.zeros((40, 1)), samples])[: len(samples)]
    soundfile.write(path, np.concatenate([samples, 0.9 * delayed], axis=1), drums.RATE)
    return path


def write_one_shots(folder: Path, count: int) -> list[Path]:
    names = list(drums.DRUMS)
    paths = []
    for index in range(count):
        samples = drums.hit(names[index % len(names)], np.random.default_rng(index))
        wanted = round(ONE_SHOT_S * drums.RATE)
        samples = np.pad(samples, (0, max(0, wanted - len(samples))))[:wanted]
        paths.append(_save(folder / f"shot{index}.wav", samples[:, None]))
    return paths


def write_loops(folder: Path, count: int) -> list[Path]:
    paths = []
    for index in range(count):
        random = np.random.default_rng(index)
        make = phrases.drum_loop if index % 2 else phrases.pitched_loop
        samples = make(random).samples
        wanted = round(LOOP_S * drums.RATE)
        repeated = np.tile(samples, (-(-wanted // len(samples)), 1))[:wanted]
        paths.append(_save(folder / f"loop{index}.wav", repeated))
    return paths


def measure_ours(path: Path) -> None:
    from benchmarks.audio.accuracy import measure_file

    measure_file(path)


def measure_with_librosa(path: Path) -> None:
    """One call a feature from the samples, harmonic and percussive apart, as its tutorial does."""
    import librosa
    import pyloudnorm

    samples, rate = librosa.load(path, sr=None, mono=False)
    mono = librosa.to_mono(samples)
    if len(mono) >= 0.4 * rate:
        pyloudnorm.Meter(rate).integrated_loudness(samples.T)
    librosa.feature.rms(y=mono)
    harmonic, percussive = librosa.effects.hpss(mono)
    librosa.beat.beat_track(y=percussive, sr=rate)
    librosa.onset.onset_detect(y=mono, sr=rate)
    librosa.feature.chroma_cqt(y=harmonic, sr=rate)
    if len(mono) < 8 * rate:
        librosa.yin(mono, fmin=44, fmax=2100, sr=rate)
    librosa.feature.mfcc(y=mono, sr=rate, n_mfcc=20)
    librosa.feature.melspectrogram(y=mono, sr=rate)
    librosa.feature.spectral_centroid(y=mono, sr=rate)
    librosa.feature.spectral_bandwidth(y=mono, sr=rate)
    librosa.feature.spectral_rolloff(y=mono, sr=rate)
    librosa.feature.spectral_flatness(y=mono)
    librosa.feature.spectral_contrast(y=mono, sr=rate)
    librosa.feature.zero_crossing_rate(mono)


def rate(measure_one: Callable[[Path], None], paths: Sequence[Path]) -> float:
    measure_one(paths[0])
    started = time.perf_counter()
    for path in paths:
        measure_one(path)
    return len(paths) / (time.perf_counter() - started)


def rate_of_two(paths: Sequence[Path]) -> float:
    context = get_context("spawn")
    with ProcessPoolExecutor(2, context, measure_ours, (paths[0],)) as pool:
        # Both workers must be up and warm before the clock starts.
        list(pool.map(measure_ours, paths[:8]))
        started = time.perf_counter()
        list(pool.map(measure_ours, paths, chunksize=max(1, len(paths) // 16)))
        return len(paths) / (time.perf_counter() - started)


def _kind_rows(kind: str, ours: Sequence[Path], theirs: Sequence[Path]) -> list[Row]:
    goal, ratio_goal = GOALS[kind]
    alone, peer = rate(measure_ours, ours), rate(measure_with_librosa, theirs)
    together = rate_of_two(ours)
    length_s = ONE_SHOT_S if kind == "one-shots" else LOOP_S
    return [
        row(
            f"{kind} of {length_s:g} s analysed, 1 process",
            alone,
            "files/s",
            peer=("librosa, one call a feature", peer),
            ratio=alone / peer,
            goal=f"≥ {ratio_goal:g} × the peer",
            met=alone >= ratio_goal * peer,
        ),
        row(
            f"{kind} of {length_s:g} s analysed, 2 processes",
            together,
            "files/s",
            goal=f"≥ {goal:g}",
            met=together >= goal,
        ),
    ]


def rows(*, quick: bool) -> list[Row]:
    shots, loops = (100, 20) if quick else (600, 80)
    with tempfile.TemporaryDirectory() as folder:
        shot_paths = write_one_shots(Path(folder), shots)
        loop_paths = write_loops(Path(folder), loops)
        return [
            *_kind_rows("one-shots", shot_paths, shot_paths[: 10 if quick else 40]),
            *_kind_rows("loops", loop_paths, loop_paths[: 4 if quick else 12]),
        ]
