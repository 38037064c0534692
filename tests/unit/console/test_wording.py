"""How numbers, times and texts are said."""

from datetime import UTC, datetime, timedelta

import pytest

from worker.console import wording

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"),
        (0.25, "250 ms"),
        (3.14, "3.1 s"),
        (42, "42 s"),
        (60, "1 min"),
        (95, "1 min 35 s"),
        (3600, "1 h"),
        (9300, "2 h 35 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_a_duration_is_said_in_its_two_largest_units(seconds: float | None, said: str) -> None:
    assert wording.duration(seconds) == said


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (timedelta(seconds=2), "now"),
        (timedelta(seconds=42), "42 s ago"),
        (timedelta(hours=5), "5 h ago"),
        (timedelta(days=-2), "in 2 d"),
    ],
)
def test_a_moment_is_said_from_now(before: timedelta, said: str) -> None:
    assert wording.ago(NOW - before, NOW) == said
    assert wording.exact(NOW) == "2026-05-01 12:00:00 UTC"


def test_what_is_not_whole_is_never_100_percent() -> None:
    assert wording.share(99_999, 100_000) == "99.9 %"
    assert wording.share(5, 5) == "100.0 %"
    assert wording.share(0, 0) == "–"


def test_a_rate_is_said_in_the_unit_in_which_it_is_more_than_one() -> None:
    assert [wording.rate(each) for each in (12.5, 0.5, 0.01, 0)] == [
        "12.5 / s",
        "30.0 / min",
        "36.0 / h",
        "–",
    ]


def test_sizes_and_counts_are_readable() -> None:
    assert [wording.size(each) for each in (512, 2048, 3 * 2**30)] == [
        "512 B",
        "2.0 KiB",
        "3.0 GiB",
    ]
    assert wording.number(1234567) == "1\u202f234\u202f567"


def test_commands_are_marked_and_everything_else_is_escaped() -> None:
    assert wording.marked("run `a <b>` & <i>") == "run <code>a &lt;b&gt;</code> &amp; &lt;i&gt;"
