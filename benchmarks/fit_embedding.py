"""Fit the projection that `samplemind.audio.embedding` ships, and write it.

    python -m benchmarks.fit_embedding

It is fitted on sounds that carry no condition into the numbers: drums synthesised by
`benchmarks.audio.drums`, and recordings under CC0 (those of Debian's `sonic-pi-samples` that its
copyright file puts under CC0, and the kit Audiophob of `hydrogen-drumkits`), labelled by their file
names. No other kit may be read here: the others are what the embedding is judged on.

The recipe: standardise each input, scale each block by its weight over the root of its width, then
thirteen directions that separate classes (linear discriminants with shrinkage, in the space of the
first principal components) beside 115 principal components, not whitened. Seeded throughout.
"""

import argparse
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy import linalg

from benchmarks.audio import drums
from samplemind.audio import embedding
from samplemind.audio.embedding import BLOCK_SIZES, DIMENSIONS, Projection, standardise
from samplemind.audio.measure import Sound, measure_blocks

Rows = NDArray[np.float64]

OUTPUT = Path(embedding.__file__).parent / "data"
SONIC_PI = Path("/usr/share/sonic-pi/samples")
SONIC_PI_LICENCES = Path("/usr/share/doc/sonic-pi-samples/copyright")
AUDIOPHOB = Path("/usr/share/hydrogen/data/drumkits/Audiophob")
LONGEST_S = 30.0
HITS_PER_CLASS = 100
# The picture says most about a sound. Harmony and rhythm are stored for queries that weight
# aspects; in the joint vector they only blur what kind of sound it is.
BLOCK_WEIGHTS = {"picture": 2.0, "harmony": 0.0, "rhythm": 0.0}
SUPERVISED = 13
SUPERVISED_FROM = 200  # principal components
SHRINKAGE = 0.5

CC0_CLASSES = (
    (r"^bd_|bass_hard|drum_bass_soft|heavy_kick|soft_kick|hollow_kick|sabmute", "kick"),
    (r"^sn_|snare", "snare"),
    (r"cymbal_closed|hhat-light|hat-light", "closed_hat"),
    (r"cymbal_open|hhat-paiste.*open", "open_hat"),
    (r"cymbal_pedal", "pedal_hat"),
    (r"cymbal_(hard|soft)|splash|elec_cymbal|crash", "crash"),
    (r"drum_tom|fuzz_tom|__tom|noise-tom", "tom"),
    (r"cowbell", "cowbell"),
    (r"^tabla", "conga"),
    (r"elec_wood", "wood"),
)


def read_sound(path: Path) -> Sound:
    with soundfile.SoundFile(path) as file:
        wanted = min(file.frames, int(LONGEST_S * file.samplerate))
        samples = file.read(wanted, dtype="float32", always_2d=True)
        duration_s = file.frames / file.samplerate
        return Sound(samples, file.samplerate, duration_s, whole=len(samples) == file.frames)


def cc0_class(name: str) -> str:
    """Class that a file name states; empty when it states none."""
    return next((label for pattern, label in CC0_CLASSES if re.search(pattern, name)), "")


def joined(sound: Sound) -> Rows:
    return embedding.join_blocks(measure_blocks(sound)).astype(np.float64)


def synthesised_rows() -> tuple[Rows, list[str]]:
    rows, labels = [], []
    for index, name in enumerate(drums.DRUMS):
        for take in range(HITS_PER_CLASS):
            samples = drums.hit(name, np.random.default_rng([index, take]))
            length_s = len(samples) / drums.RATE
            rows.append(joined(Sound(samples[:, None], drums.RATE, length_s, whole=True)))
            labels.append(name)
    return np.array(rows), labels


def cc0_paths() -> list[Path]:
    """Recordings that Debian's copyright files put under CC0."""
    if not (SONIC_PI_LICENCES.is_file() and SONIC_PI.is_dir() and AUDIOPHOB.is_dir()):
        message = "install Debian's sonic-pi-samples and hydrogen-drumkits to fit the projection"
        raise SystemExit(message)
    licences = SONIC_PI_LICENCES.read_text(encoding="utf-8")
    names = {
        name
        for paragraph in licences.split("\n\n")
        if re.search(r"^License: CC0$", paragraph, re.MULTILINE)
        for name in re.findall(r"etc/samples/(\S+\.flac)", paragraph)
    }
    return sorted(SONIC_PI / name for name in names) + sorted(AUDIOPHOB.glob("*.wav"))


def cc0_rows() -> tuple[Rows, list[str]]:
    paths = cc0_paths()
    return np.array([joined(read_sound(path)) for path in paths]), [
        cc0_class(path.name) for path in paths
    ]


def block_scale(deviation: Rows) -> Rows:
    weights = [
        np.full(size, BLOCK_WEIGHTS.get(name, 1.0) / np.sqrt(size))
        for name, size in BLOCK_SIZES.items()
    ]
    return np.asarray(np.concatenate(weights) / deviation)


def fix_signs(columns: Rows) -> Rows:
    """Make each column's largest entry positive: eigenvectors have no sign of their own."""
    largest = np.abs(columns).argmax(axis=0)
    return np.asarray(columns * np.sign(columns[largest, np.arange(columns.shape[1])]))


def discriminants(components: Rows, labels: list[str]) -> Rows:
    """Directions of the most variance between classes for the least within, all classes alike."""
    names = np.array(labels)
    classes = [components[names == name] for name in sorted(set(labels) - {""})]
    centre = np.concatenate(classes).mean(axis=0)
    offsets = np.array([rows.mean(axis=0) - centre for rows in classes])
    between = offsets.T @ offsets / len(classes)
    within = np.mean([np.cov(rows.T, bias=True) for rows in classes], axis=0)
    size = len(within)
    shrunk = (1 - SHRINKAGE) * within + SHRINKAGE * np.trace(within) / size * np.eye(size)
    _, vectors = linalg.eigh(between, shrunk)
    return np.asarray(vectors[:, ::-1][:, :SUPERVISED])


def fit(synthesised: Rows, recorded: Rows, labels: list[str]) -> Projection:
    """Fit a projection; `labels` are of the synthesised rows, then of the recorded ones."""
    # Recordings are fewer but nearer to what will be searched: both halves weigh the same in what
    # counts as the usual value of an input.
    repeat = max(1, round(len(synthesised) / len(recorded)))
    reference = np.concatenate([synthesised, *[recorded] * repeat])
    deviation = reference.std(axis=0) + 1e-6
    plain = Projection(
        version="",
        mean=reference.mean(axis=0).astype(np.float32),
        deviation=deviation.astype(np.float32),
        scale=block_scale(deviation).astype(np.float32),
        supervised=np.zeros((0, 0), np.float32),
        unsupervised=np.zeros((0, 0), np.float32),
        centre=np.zeros(0, np.float32),
    )
    rows = np.concatenate([synthesised, recorded]).astype(np.float32)
    inputs = standardise(rows, plain).astype(np.float64)
    centre = inputs.mean(axis=0)
    _, _, directions = np.linalg.svd(inputs - centre, full_matrices=False)
    leading = directions[:SUPERVISED_FROM].T
    supervised = fix_signs(leading @ discriminants((inputs - centre) @ leading, labels))
    unsupervised = fix_signs(directions[: DIMENSIONS - SUPERVISED].T)
    supervised /= np.abs(supervised).max()
    matrices = [
        matrix.astype(np.float16).astype(np.float32) for matrix in (supervised, unsupervised)
    ]
    digest = hashlib.sha256(b"".join(matrix.tobytes() for matrix in matrices)).hexdigest()[:8]
    return Projection(
        version=f"lda{SUPERVISED}-pca{DIMENSIONS - SUPERVISED}-{digest}",
        mean=plain.mean,
        deviation=plain.deviation,
        scale=plain.scale,
        supervised=matrices[0],
        unsupervised=matrices[1],
        centre=np.concatenate([centre @ matrix for matrix in matrices]).astype(np.float32),
    )


def write(projection: Projection, folder: Path, counts: dict[str, int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        folder / "projection.npz",
        version=projection.version,
        mean=projection.mean,
        deviation=projection.deviation,
        scale=projection.scale,
        supervised=projection.supervised.astype(np.float16),
        unsupervised=projection.unsupervised.astype(np.float16),
        centre=projection.centre,
    )
    provenance = {
        "version": projection.version,
        "fitted_by": "benchmarks/fit_embedding.py",
        "fitted_on": counts,
        "block_weights": {name: BLOCK_WEIGHTS.get(name, 1.0) for name in BLOCK_SIZES},
    }
    text = json.dumps(provenance, indent=2) + "\n"
    (folder / "projection.json").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    synthesised, labels = synthesised_rows()
    recorded, recorded_labels = cc0_rows()
    projection = fit(synthesised, recorded, labels + recorded_labels)
    counts = {
        "synthesised drums": len(synthesised),
        "CC0 recordings": len(recorded),
        "CC0 recordings with a class": sum(label != "" for label in recorded_labels),
    }
    write(projection, arguments.output, counts)
    print(f"{projection.version}: {counts}")


if __name__ == "__main__":
    main()
