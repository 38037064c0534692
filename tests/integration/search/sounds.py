"""A library of sounds written straight into the index, and what numpy finds in it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.ids import new_id
from samplemind.models.search_document import SearchDocument
from samplemind.models.search_vector import FreshSearchVector, SearchVector
from samplemind.search.nearest import Metric

VERSION = "test-1"
CENTRES = 30


@dataclass(frozen=True, slots=True)
class StoredSound:
    """A file of the library; `vector` is as the index holds it, in half precision."""

    file_id: UUID
    owner_id: UUID | None
    vector: NDArray[np.float32]
    kind: str
    tempo_bpm: float | None
    key: str


@dataclass(frozen=True, slots=True)
class SoundLibrary:
    """All of them, and the exact answers."""

    sounds: tuple[StoredSound, ...]

    def nearest(
        self,
        vector: NDArray[np.float32],
        limit: int,
        *,
        metric: Metric = Metric.COSINE,
        passes: Callable[[StoredSound], bool] = lambda _: True,
    ) -> list[UUID]:
        """The nearest that pass, by comparing with every one."""
        passing = [sound for sound in self.sounds if passes(sound)]
        matrix = np.stack([sound.vector for sound in passing]).astype(np.float64)
        wanted = vector.astype(np.float16).astype(np.float64)
        product = matrix @ wanted
        distance = {
            Metric.COSINE: -product / (np.linalg.norm(matrix, axis=1) * np.linalg.norm(wanted)),
            Metric.INNER_PRODUCT: -product,
            Metric.L2: np.linalg.norm(matrix - wanted, axis=1),
        }[metric]
        return [passing[place].file_id for place in np.argsort(distance, kind="stable")[:limit]]


def clustered(count: int, seed: int) -> NDArray[np.float32]:
    """Return unit vectors around a few centres, float32, shape (count, 128)."""
    centres = np.random.default_rng(0).standard_normal((CENTRES, 128))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(CENTRES, size=count)] + 0.8 * rng.standard_normal((count, 128))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def make_sounds(count: int, owners: list[UUID | None], *, seed: int = 1) -> SoundLibrary:
    """Return sounds whose owners have each a third as many as the one before."""
    rng = np.random.default_rng(seed)
    shares = np.array([3.0**-place for place in range(len(owners))])
    whose = rng.choice(len(owners), size=count, p=shares / shares.sum())
    keys = ("C major", "A minor", "F# minor")
    return SoundLibrary(
        tuple(
            StoredSound(
                new_id(),
                owners[whose[place]],
                vector.astype(np.float16).astype(np.float32),
                kind="loop" if place % 3 == 0 else "one_shot",
                tempo_bpm=80 + place % 100 if place % 3 == 0 else None,
                key=keys[place % len(keys)],
            )
            for place, vector in enumerate(clustered(count, seed))
        )
    )


async def store(session: AsyncSession, library: SoundLibrary, *, fresh: int = 0) -> None:
    """Write the library: the last `fresh` of it among the fresh vectors, the others in the main."""
    now = datetime.now(UTC)
    await session.execute(
        insert(SearchDocument),
        [
            {
                "file_id": sound.file_id,
                "owner_id": sound.owner_id,
                "revision": 1,
                "path": f"/{sound.file_id}.wav",
                "title": str(sound.file_id),
                "tags": [],
                "kind": sound.kind,
                "tempo_bpm": sound.tempo_bpm,
                "key": sound.key,
                "embedding_version": VERSION,
                "language": "samplemind",
                "wording": "",
                "quality": 0.0,
                "created_at": now,
                "index_version": 1,
                "fingerprint": b"",
            }
            for sound in library.sounds
        ],
    )
    main = len(library.sounds) - fresh
    for table, part in (
        (SearchVector, library.sounds[:main]),
        (FreshSearchVector, library.sounds[main:]),
    ):
        if part:
            await session.execute(
                insert(table),
                [
                    {
                        "file_id": sound.file_id,
                        "owner_id": sound.owner_id,
                        "embedding_version": VERSION,
                        "embedding": HalfVector(sound.vector),
                    }
                    for sound in part
                ],
            )
