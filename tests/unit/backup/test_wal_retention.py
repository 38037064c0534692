"""Which WAL is kept: whatever a recovery within the window needs, and not much else."""

import itertools
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from samplemind.backup.wal import WalSegment
from samplemind.backup.wal_retention import WalBase, plan_wal

SEGMENT = 16 * 2**20
START = datetime(2026, 11, 1, tzinfo=UTC)


def name(number: int, timeline: int = 1) -> str:
    return WalSegment(timeline, number).file_name(SEGMENT)


def base(number: int, length: int = 1, *, usable: bool = True) -> WalBase:
    """A base whose begin lies in that segment; a segment fills up in an hour."""
    last = number + length
    return WalBase(
        WalSegment(1, number), WalSegment(1, last), START + timedelta(hours=last + 1), usable
    )


bases = st.lists(
    st.builds(base, st.integers(0, 200), st.integers(0, 3), usable=st.booleans()), max_size=6
)


@given(bases, st.integers(-10, 250), st.sets(st.integers(0, 220)))
def test_every_moment_of_the_window_keeps_its_way_and_each_base_its_own_segments(
    there: list[WalBase], begin: int, stored: set[int]
) -> None:
    window_start = START + timedelta(hours=begin)
    plan = plan_wal([name(number) for number in stored], there, window_start, SEGMENT)
    gone = {WalSegment.parse(each, SEGMENT).number for each in plan.delete}
    assert gone <= stored
    usable = [each for each in there if each.usable]
    if not usable:
        assert not gone
        return
    for each in there:
        assert gone.isdisjoint(range(each.first.number, each.last.number + 1))
    for hour in range(begin, 260):
        moment = START + timedelta(hours=hour)
        before = [each for each in usable if each.finished_at <= moment]
        if before:
            newest = max(before, key=lambda each: each.finished_at)
            assert gone.isdisjoint(range(newest.first.number, hour + 1))


def test_between_bases_from_before_the_window_only_their_own_segments_stay() -> None:
    there = [base(10), base(50, 2), base(100), base(150)]
    plan = plan_wal(map(name, range(200)), there, START + timedelta(hours=120), SEGMENT)
    kept = sorted(set(map(name, range(200))) - set(plan.delete))
    own = [10, 11, 50, 51, 52]
    assert kept == [name(number) for number in itertools.chain(own, range(100, 200))]
    assert plan.window == WalSegment(1, 100)


def test_without_a_base_before_the_window_everything_since_the_oldest_stays() -> None:
    plan = plan_wal(map(name, range(200)), [base(20), base(60)], START, SEGMENT)
    assert plan.delete == tuple(name(number) for number in range(20))


def test_a_base_that_failed_is_no_begin_of_the_window() -> None:
    there = [base(10), base(50, usable=False)]
    plan = plan_wal(map(name, range(100)), there, START + timedelta(hours=90), SEGMENT)
    assert plan.delete == tuple(name(number) for number in range(10))


def test_histories_and_the_branches_of_other_timelines_stay() -> None:
    there = [base(50)]
    names = ["00000002.history", name(10), name(10, 2), name(60, 2), "something"]
    plan = plan_wal(names, there, START + timedelta(hours=90), SEGMENT)
    assert plan.delete == (name(10),)
