import dataclasses

import numpy as np
import pytest

from samplemind.audio.embedding import (
    BLOCK_SIZES,
    DIMENSIONS,
    join_blocks,
    project,
    shipped_projection,
)
from samplemind.audio.measure import measure, measure_blocks
from tests.unit.audio.sounds import RATE, chord_progression, click_track, hit, sound


def test_an_embedding_is_a_unit_vector_of_its_size() -> None:
    for samples in (hit(0), click_track(100, 8), chord_progression(2, minor=False)):
        embedding = measure(sound(samples)).embedding
        assert embedding.shape == (DIMENSIONS,)
        assert embedding.dtype == np.float32
        assert np.linalg.norm(embedding) == pytest.approx(1.0, abs=1e-5)


def test_the_same_sound_gives_the_same_bits() -> None:
    first, second = measure(sound(hit(3))), measure(sound(hit(3).copy()))
    assert first.as_dict() == second.as_dict()


@pytest.mark.parametrize("gain", [0.003, 0.3, 2.0])
def test_the_embedding_does_not_depend_on_gain(gain: float) -> None:
    plain, scaled = measure(sound(hit(3))), measure(sound(gain * hit(3)))
    assert float(plain.embedding @ scaled.embedding) > 0.9999


def test_the_embedding_does_not_depend_on_the_number_of_channels() -> None:
    mono = hit(3)
    stereo = np.stack([mono, mono], axis=1)
    assert float(measure(sound(mono)).embedding @ measure(sound(stereo)).embedding) > 0.9999


def test_channels_in_opposite_phase_are_still_heard() -> None:
    mono = hit(3)
    opposed = np.stack([mono, -mono], axis=1)
    assert float(measure(sound(mono)).embedding @ measure(sound(opposed)).embedding) > 0.999


def test_near_duplicates_rank_first() -> None:
    originals = [hit(seed) for seed in range(30)]
    library = np.array([measure(sound(samples)).embedding for samples in originals])
    random = np.random.default_rng(9)
    for index in range(0, 30, 3):
        original = originals[index]
        copies = [
            0.4 * original,
            original + 1e-3 * random.normal(size=len(original)),
            np.pad(original, (300, 4000)),
            np.round(original * 2000) / 2000,
        ]
        for copy in copies:
            likeness = library @ measure(sound(copy)).embedding
            assert int(likeness.argmax()) == index


def test_stored_blocks_give_the_same_embedding_again() -> None:
    found = measure(sound(hit(4)))
    restored = {
        name: np.array(values, dtype=np.float16)
        for name, values in found.as_dict()["blocks"].items()
    }
    np.testing.assert_array_equal(project(restored), found.embedding)


def test_another_projection_needs_no_second_decode() -> None:
    found = measure(sound(hit(4)))
    swapped = dataclasses.replace(
        shipped_projection(), supervised=-shipped_projection().supervised, version="other"
    )
    again = project(found.blocks, swapped)
    assert np.linalg.norm(again) == pytest.approx(1.0, abs=1e-5)
    assert not np.allclose(again, found.embedding)


def test_blocks_have_their_sizes_and_are_finite() -> None:
    blocks = measure_blocks(sound(hit(5)))
    assert {name: len(values) for name, values in blocks.items()} == BLOCK_SIZES
    assert all(values.dtype == np.float16 for values in blocks.values())
    assert np.isfinite(join_blocks(blocks)).all()


def test_the_shipped_projection_fits_the_blocks_and_names_itself() -> None:
    projection = shipped_projection()
    inputs = sum(BLOCK_SIZES.values())
    assert projection.supervised.shape[0] == projection.unsupervised.shape[0] == inputs
    assert projection.supervised.shape[1] + projection.unsupervised.shape[1] == DIMENSIONS
    assert measure(sound(hit(1), RATE)).embedding_version == projection.version
