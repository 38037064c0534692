import numpy as np
import pytest

from samplemind.audio.embedding import BLOCK_SIZES, INPUT_DIMENSIONS, shipped_projection
from samplemind.errors import InvalidInputError
from samplemind.search.aspects import (
    ASPECTS,
    aspect_distances,
    check_weights,
    weighted_distance,
)


def test_a_sound_differs_only_in_the_aspects_that_were_changed() -> None:
    projection = shipped_projection()
    one = projection.mean.astype(np.float32)
    other = one.copy()
    start = 0
    for name, size in BLOCK_SIZES.items():
        if name == "envelope":
            other[start : start + size] += projection.deviation[start : start + size]
        start += size
    assert start == INPUT_DIMENSIONS

    apart = aspect_distances(one, np.stack([one, other]))

    assert {name for name in ASPECTS if apart[name][1] > 0} == {"envelope"}
    assert apart["envelope"][1] == pytest.approx(1, rel=0.01)
    assert all(distances[0] == 0 for distances in apart.values())


def test_a_weight_of_two_counts_twice() -> None:
    distances = {"timbre": np.array([1.0, 0.0]), "pitch": np.array([0.0, 1.0])}
    weighted = weighted_distance(distances, {"timbre": 2.0, "pitch": 1.0})
    assert weighted.tolist() == pytest.approx([2 / 3, 1 / 3])


@pytest.mark.parametrize(
    "weights",
    [{}, {"colour": 1}, {"timbre": -1}, {"timbre": 101}, {"timbre": float("nan")}, {"pitch": 0}],
)
def test_weights_that_mean_nothing_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError):
        check_weights(weights)


def test_aspects_without_weight_are_left_out() -> None:
    assert check_weights({"timbre": 1, "pitch": 0}) == {"timbre": 1.0}
