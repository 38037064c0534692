"""A library of sounds that never were: names, tags, packs, owners and vectors as real ones have.

Everything follows from a seed and a file's chunk, so any part can be made again, in any process,
and two peers see the same files. Words follow Zipf's law with Mandelbrot's shift: the commonest
are in a tenth of all names, and half of the vocabulary is in a handful. Vectors lie in clusters,
as sounds do.

It never touches a store.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import pairwise
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.words import WORDS, vocabulary

Vectors = NDArray[np.float32]

CHUNK = 10_000
DIMENSIONS = 128
EMBEDDING_VERSION = "bench-1"

# Each owner's share of the files; what is left belongs to the library itself, seen by everybody,
# and to a long tail of owners.
OWNER_SHARES = (0.30, 0.10, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
_LIBRARY_SHARE = 0.20
_TAIL_OWNERS = 500

_EXPONENT = 1.15  # Zipf's: words are fewer the higher it is
_SHIFT = 2.7  # of the ranks: Mandelbrot's
_PACK_FILES = 120
_CLUSTERS = 2_000
# How far a sound lies from its cluster's centre: HNSW then needs an ef_search of
# 60 to 120 for a recall of .95, as with real embeddings.
_SPREAD = 0.8
_NEWEST = datetime(2026, 11, 1, tzinfo=UTC)

_NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_FORMATS = ("wav", "aiff", "flac", "mp3")


@dataclass(frozen=True, slots=True)
class Sound:
    """A file as the index sees it: the names are those of `AudioFile`."""

    id: UUID
    owner_id: UUID | None
    path: str
    title: str
    pack: str
    artist: str
    description: str | None
    tags: list[str]
    kind: str
    format: str
    tempo_bpm: float | None
    key: str | None
    duration_s: float
    loudness_lufs: float
    created_at: datetime
    plays: int
    content_hash: str
    status: str = "analyzed"
    revision: int = 1
    language: str | None = None
    root_note: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some files and their vectors, float32, shape (n, 128), unit rows."""

    sounds: list[Sound]
    vectors: Vectors


class Library:
    """So many files of a seed."""

    def __init__(self, files: int, seed: int = 7) -> None:
        self.files = files
        self.seed = seed

    @property
    def chunks(self) -> int:
        return -(-self.files // CHUNK)

    def __iter__(self) -> Iterator[Chunk]:
        return (self.chunk(number) for number in range(self.chunks))

    @cached_property
    def owners(self) -> list[UUID]:
        """The owners with a share of `OWNER_SHARES`, then those of the tail."""
        rng = np.random.default_rng((self.seed, 2))
        return [_uuid(rng.bytes(16)) for _ in range(len(OWNER_SHARES) + _TAIL_OWNERS)]

    def chunk(self, number: int) -> Chunk:
        """Return the chunk of that number; always the same."""
        rng = np.random.default_rng((self.seed, 3, number))
        size = min(CHUNK, self.files - number * CHUNK)
        cluster = _zipf(rng, _CLUSTERS, size, shift=50)
        return Chunk(self._sounds(rng, size, cluster), self._vectors(rng, cluster))

    def query_vectors(self, count: int) -> Vectors:
        """Return vectors of sounds that are not in the library."""
        rng = np.random.default_rng((self.seed, 4))
        return self._vectors(rng, _zipf(rng, _CLUSTERS, count, shift=50))

    def _vectors(self, rng: np.random.Generator, cluster: NDArray[np.int64]) -> Vectors:
        noise = rng.standard_normal((len(cluster), DIMENSIONS), np.float32) * self._spectrum
        vectors = self._centres[cluster] + np.float32(_SPREAD) * noise
        unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    @cached_property
    def _spectrum(self) -> Vectors:
        # Real embeddings vary much in a few directions and little in most.
        weights = (1 + np.arange(DIMENSIONS)) ** -0.5
        return (weights / np.linalg.norm(weights)).astype(np.float32)

    @cached_property
    def _centres(self) -> Vectors:
        rng = np.random.default_rng((self.seed, 5))
        return rng.standard_normal((_CLUSTERS, DIMENSIONS), np.float32) * self._spectrum

    def _sounds(
        self, rng: np.random.Generator, size: int, cluster: NDArray[np.int64]
    ) -> list[Sound]:
        words = np.array(vocabulary(self.seed), dtype=object)
        names = words[_zipf(rng, WORDS, (size, 3), shift=_SHIFT)]
        tags = words[_zipf(rng, 300, (size, 5), shift=_SHIFT)]
        tags[:, 0] = words[cluster % 40]  # what the sound is, as its cluster has it
        owners = self._draw_owners(rng, size)
        packs = self._packs(rng, size)
        ids = rng.bytes(16 * size)
        loop = rng.random(size) < 0.4
        tempo = np.round(rng.normal(124, 18, size).clip(60, 200), 1)
        keyed = rng.random(size) < 0.6
        tonic, minor = rng.integers(0, 12, size), rng.random(size) < 0.6
        duration = np.where(loop, rng.gamma(4, 2, size), rng.gamma(2, 0.5, size)) + 0.05
        loudness = rng.normal(-14, 5, size)
        age = rng.exponential(500, size)
        plays = (rng.pareto(1.2, size) * 3).astype(np.int64)
        take = rng.integers(1, 100, size)
        made = rng.integers(0, len(_FORMATS) * 3, size)
        sounds = []
        for i in range(size):
            key = f"{_NOTES[tonic[i]]} {'minor' if minor[i] else 'major'}" if keyed[i] else None
            pack, artist = packs[i]
            form = _FORMATS[max(0, made[i] - 2 * len(_FORMATS))]
            number = int(take[i])
            words_of_name = [word.capitalize() for word in names[i, : 2 + number % 2]]
            title = f"{' '.join(words_of_name)} {number:02d}"
            stem = "_".join(words_of_name) + f"_{number:02d}"
            if loop[i]:
                stem += f"_{round(tempo[i])}bpm"
            sounds.append(
                Sound(
                    id=_uuid(ids[16 * i : 16 * i + 16]),
                    owner_id=owners[i],
                    path=f"/{pack.replace(' ', '_')}/{tags[i, 0]}/{stem}.{form}",
                    title=title,
                    pack=pack,
                    artist=artist,
                    description=f"{tags[i, 1]} {tags[i, 0]} by {artist}" if number < 15 else None,
                    tags=sorted(set(tags[i].tolist())),
                    kind="loop" if loop[i] else "one_shot",
                    format=form,
                    tempo_bpm=float(tempo[i]) if loop[i] else None,
                    key=key,
                    duration_s=round(float(duration[i]), 3),
                    loudness_lufs=round(float(loudness[i]), 1),
                    created_at=_NEWEST - timedelta(days=float(age[i])),
                    plays=int(plays[i]),
                    content_hash=ids[16 * i : 16 * i + 16].hex() * 2,
                )
            )
        return sounds

    def _draw_owners(self, rng: np.random.Generator, size: int) -> list[UUID | None]:
        tail = (1 - _LIBRARY_SHARE - sum(OWNER_SHARES)) / _TAIL_OWNERS
        shares = np.array([*OWNER_SHARES, *([tail] * _TAIL_OWNERS), _LIBRARY_SHARE])
        choices: list[UUID | None] = [*self.owners, None]
        return [choices[i] for i in rng.choice(len(choices), size, p=shares / shares.sum())]

    def _packs(self, rng: np.random.Generator, size: int) -> list[tuple[str, str]]:
        # A pack's files lie together, as they do in a library that grew pack by pack.
        words = vocabulary(self.seed)
        edges = [0]
        while edges[-1] < size:
            edges.append(edges[-1] + int(rng.geometric(1 / _PACK_FILES)))
        packs: list[tuple[str, str]] = []
        for start, end in pairwise(edges):
            first, second = _zipf(rng, WORDS, 2, shift=30)
            pack = f"{words[first].capitalize()} {words[second].capitalize()}"
            artist = words[int(rng.integers(2_000, 6_000))].capitalize()
            packs += [(pack, artist)] * (end - start)
        return packs


def _zipf(
    rng: np.random.Generator, most: int, size: int | tuple[int, int], *, shift: float
) -> NDArray[np.int64]:
    """Return ranks from 0 to `most` - 1, each as often as Zipf and Mandelbrot say."""
    cumulative = np.cumsum((np.arange(1, most + 1) + shift) ** -_EXPONENT)
    ranks: NDArray[np.int64] = np.searchsorted(cumulative, rng.random(size) * cumulative[-1])
    return ranks


def _uuid(data: bytes) -> UUID:
    return UUID(bytes=data, version=4)
