import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplemind.maintenance.pace import LONGEST_MS, Pace, next_size, pause_s


@given(
    row_ms=st.floats(0.001, 0.5),
    fixed_ms=st.floats(0, 5),
    slower=st.floats(1, 4),
    first=st.integers(20, 20_000),
)
def test_chunks_settle_below_the_limit_even_where_the_disk_becomes_slower(
    row_ms: float, fixed_ms: float, slower: float, first: int
) -> None:
    size = first
    for _ in range(60):
        size = next_size(size, fixed_ms + size * row_ms)
    assert fixed_ms + size * row_ms * slower < LONGEST_MS
    if size not in {20, 20_000}:
        assert fixed_ms + size * row_ms == pytest.approx(15, abs=8)  # neither idle nor long


def test_one_slow_chunk_shortens_the_next_at_once_and_growth_is_slow() -> None:
    assert next_size(1000, 150) == 100
    assert next_size(1000, 0) == 1250
    assert next_size(20, 10_000) == 20
    assert next_size(20_000, 0) == 20_000


@pytest.mark.parametrize(("duty", "share"), [(1.0, 1.0), (0.5, 0.5), (0.2, 0.2)])
def test_the_pause_leaves_the_share_that_the_duty_names(duty: float, share: float) -> None:
    assert 2.0 / (2.0 + pause_s(2.0, duty)) == pytest.approx(share)


def test_a_chunk_is_measured_and_a_window_without_time_is_over() -> None:
    pace = Pace(duty=0.5, seconds=0)
    assert pace.is_over
    with pace.chunk():
        sum(range(100_000))
    assert pace.longest_ms > 0
