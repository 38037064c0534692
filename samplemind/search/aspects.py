"""What a producer means by "similar": timbre, pitch, rhythm…, each with a weight of its own.

The embedding fixes how much each aspect counts; with weights, the nearest by embedding are put in
order anew by their raw blocks. Pure functions.

Invariant: each aspect's distance has about the same scale (1 for two sounds that are a standard
deviation apart in every number), so a weight of 2 counts twice as much as a weight of 1.
"""

import math
from collections.abc import Mapping
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from samplemind.audio.embedding import (
    BLOCK_SIZES,
    CLIP_DEVIATIONS,
    Projection,
    shipped_projection,
)
from samplemind.errors import InvalidInputError

ASPECTS = tuple(BLOCK_SIZES)
MOST_WEIGHT = 100.0

_PARTS = {
    name: slice(start, stop)
    for name, (start, stop) in zip(
        BLOCK_SIZES, pairwise(accumulate(BLOCK_SIZES.values(), initial=0)), strict=True
    )
}


def check_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """Return the weights that are not zero.

    Raises:
        InvalidInputError: an unknown aspect, a weight that is negative, too large or no number,
            or no weight at all.
    """
    unknown = sorted(set(weights) - set(ASPECTS))
    if unknown:
        message = f"no aspect {', '.join(unknown)}: there are {', '.join(ASPECTS)}"
        raise InvalidInputError(message)
    for name, weight in weights.items():
        if not math.isfinite(weight) or not 0 <= weight <= MOST_WEIGHT:
            message = f"the weight of {name} is from 0 to {MOST_WEIGHT:.0f}, not {weight}"
            raise InvalidInputError(message)
    kept = {name: float(weight) for name, weight in weights.items() if weight > 0}
    if not kept:
        message = f"give at least one aspect a weight above 0: {', '.join(ASPECTS)}"
        raise InvalidInputError(message)
    return kept


def aspect_distances(
    wanted: NDArray[np.float32],
    others: NDArray[np.float32],
    *,
    projection: Projection | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Return how far each of `others` is from `wanted` in each aspect.

    Args:
        wanted: joined blocks, shape (INPUT_DIMENSIONS,).
        others: joined blocks in rows, shape (n, INPUT_DIMENSIONS).
        projection: whose statistics make numbers comparable; the shipped one when None.

    Returns:
        aspect → float64, shape (n,), root mean square of the standardised differences, 0 or more.
    """
    fitted = projection or shipped_projection()
    one, rows = _standardised(wanted, fitted), _standardised(others, fitted)
    return {
        name: np.sqrt(np.mean(np.square(rows[:, part] - one[part]), axis=1))
        for name, part in _PARTS.items()
    }


def weighted_distance(
    distances: Mapping[str, NDArray[np.float64]], weights: Mapping[str, float]
) -> NDArray[np.float64]:
    """Return the weighted mean of the aspects' distances, shape (n,)."""
    total = sum(weights.values())
    return np.asarray(
        sum(weight * distances[name] for name, weight in weights.items()) / total,
        dtype=np.float64,
    )


def _standardised(joined: NDArray[np.float32], fitted: Projection) -> NDArray[np.float64]:
    limit = CLIP_DEVIATIONS * fitted.deviation
    # A number that never varied while fitting says nothing.
    deviation = np.where(fitted.deviation > 0, fitted.deviation, np.inf)
    return np.asarray(np.clip(joined - fitted.mean, -limit, limit) / deviation, dtype=np.float64)
