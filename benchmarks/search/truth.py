"""The exact answers that approximate ones are measured against."""

from collections.abc import Sequence
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.sounds import DIMENSIONS, Library, Vectors

RECALL_AT = 10
_PART = 50_000


class VectorTruth:
    """All vectors of a library in memory, rounded as the index rounds them."""

    def __init__(self, library: Library) -> None:
        self.vectors = np.empty((library.files, DIMENSIONS), np.float32)
        self.ids: list[UUID] = []
        owners: list[UUID | None] = []
        for chunk in library:
            start = len(self.ids)
            self.ids += [sound.id for sound in chunk.sounds]
            owners += [sound.owner_id for sound in chunk.sounds]
            self.vectors[start : len(self.ids)] = chunk.vectors.astype(np.float16)
        self._owners = np.array(owners, dtype=object)

    def nearest(self, questions: Vectors, owner: UUID | None = None) -> list[set[UUID]]:
        """Return the ids of the nearest ten of each question; of one owner where asked."""
        chosen = (
            np.arange(len(self.ids)) if owner is None else np.flatnonzero(self._owners == owner)
        )
        return [
            {self.ids[chosen[place]] for place in places}
            for places in _nearest(self.vectors[chosen], questions)
        ]

    def places(self, questions: Vectors) -> list[set[int]]:
        """Return the same as places in `vectors`, for a peer that knows no ids."""
        return [set(places.tolist()) for places in _nearest(self.vectors, questions)]


def recall(found: Sequence[Sequence[UUID]], truth: Sequence[set[UUID]]) -> float:
    """Return the mean share of the true nearest that were found."""
    shares = [
        len(true & set(answer)) / len(true)
        for answer, true in zip(found, truth, strict=True)
        if true
    ]
    return float(np.mean(shares))


def _nearest(vectors: Vectors, questions: Vectors) -> NDArray[np.int64]:
    lengths = np.linalg.norm(vectors, axis=1)
    take = min(RECALL_AT, len(vectors))
    best_places = np.zeros((len(questions), 0), np.int64)
    best_scores = np.zeros((len(questions), 0), np.float32)
    for start in range(0, len(vectors), _PART):
        end = start + _PART
        scores = questions @ vectors[start:end].T / lengths[start:end]
        places = np.broadcast_to(np.arange(start, start + scores.shape[1]), scores.shape)
        scores = np.concatenate([best_scores, scores], axis=1)
        places = np.concatenate([best_places, places], axis=1)
        order = np.argpartition(-scores, min(take, scores.shape[1]) - 1, axis=1)[:, :take]
        best_scores = np.take_along_axis(scores, order, axis=1)
        best_places = np.take_along_axis(places, order, axis=1)
    return best_places
