"""How many processes a role has where nobody says."""

import os

import pytest

from worker.roles import available_cores


@pytest.mark.parametrize(
    ("told", "allowed"),
    [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("nonsense", None)],
    ids=["one", "half", "all", "unreadable"],
)
def test_a_container_counts_the_cores_that_it_may_use(tmp_path, told, allowed):
    quota = tmp_path / "cpu.max"
    quota.write_text(f"{told}\n")
    assert available_cores(quota) == (allowed or len(os.sched_getaffinity(0)))


def test_without_a_share_all_cores_count(tmp_path):
    assert available_cores(tmp_path / "none") == len(os.sched_getaffinity(0))
    huge = tmp_path / "cpu.max"
    huge.write_text("100000000 100000\n")
    assert available_cores(huge) == len(os.sched_getaffinity(0))
