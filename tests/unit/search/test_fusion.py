from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplemind.search.fusion import Fusion, Ranked, fuse, normalised

A, B, C = (UUID(int=number) for number in (1, 2, 3))
HALF = {"text": 0.5, "sound": 0.5}
RANKINGS = {
    "text": [Ranked(A, 0.9), Ranked(B, 0.4)],
    "sound": [Ranked(C, 0.8), Ranked(A, 0.7), Ranked(B, 0.6)],
}


def test_reciprocal_ranks_are_summed_whatever_the_scores() -> None:
    fused = {
        one.file_id: one.score
        for one in fuse(RANKINGS, fusion=Fusion.RECIPROCAL_RANK, weights=HALF)
    }
    assert fused[A] == pytest.approx(1 / 61 + 1 / 62)
    assert fused[B] == pytest.approx(1 / 62 + 1 / 63)
    assert fused[C] == pytest.approx(1 / 61)
    assert list(fused) == [A, B, C]


def test_weighted_scores_are_brought_to_one_scale_first() -> None:
    fused = fuse(RANKINGS, fusion=Fusion.WEIGHTED, weights={"text": 0.25, "sound": 0.75})
    assert {one.file_id: one.score for one in fused} == {
        A: pytest.approx(0.25 + 0.75 * 0.55),
        B: pytest.approx(0.25 * 0.1 + 0.75 * 0.1),
        C: pytest.approx(0.75),
    }
    assert [one.file_id for one in fused] == [C, A, B]


def test_a_scores_parts_sum_to_it() -> None:
    for fusion in Fusion:
        for one in fuse(RANKINGS, fusion=fusion, weights=HALF):
            parts = [part for name, part in one.parts.items() if name.endswith("_part")]
            assert one.score == pytest.approx(sum(parts))


def test_equal_scores_go_to_the_newer_id() -> None:
    tied = {"text": [Ranked(A, 1.0)], "sound": [Ranked(B, 1.0)]}
    for fusion in Fusion:
        assert [one.file_id for one in fuse(tied, fusion=fusion, weights=HALF)] == [B, A]


@given(st.lists(st.floats(-1, 1), max_size=20))
def test_normalised_scores_keep_their_order_within_their_bounds(scores: list[float]) -> None:
    shares = normalised(scores)
    assert all(0.1 - 1e-9 <= share <= 1 + 1e-9 for share in shares)
    for (one, share), (other, other_share) in zip(
        zip(scores, shares, strict=True), zip(scores[1:], shares[1:], strict=True), strict=False
    ):
        assert (one <= other) <= (share <= other_share + 1e-9)
