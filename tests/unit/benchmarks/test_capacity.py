"""The capacity model, where it can be reckoned by hand, and against a simulated queue."""

import heapq
import math
import random

import pytest

from benchmarks.capacity import (
    Costs,
    Site,
    bound_by,
    files_an_hour,
    mean_wait_s,
    processes_for,
    seconds_to_clear,
    throughput,
)

COSTS = Costs(process_s=0.05, processor_s=0.04, index_s=0.001)


@pytest.mark.parametrize(
    ("site", "files_a_second", "bound"),
    [
        (Site(processes=1, processors=2), 20, "processes"),
        (Site(processes=4, processors=2), 50, "processors"),
        (Site(processes=100, processors=100), 1000, "index"),
    ],
    ids=["processes", "processors", "index"],
)
def test_the_least_of_three_bounds_is_the_throughput(site, files_a_second, bound):
    assert throughput(COSTS, site) == pytest.approx(files_a_second)
    assert files_an_hour(COSTS, site) == pytest.approx(3600 * files_a_second)
    assert bound_by(COSTS, site) == bound


def test_processes_for_a_rate_leave_room_for_a_peak():
    assert processes_for(COSTS, 72_000, busy=1.0) == 1
    assert processes_for(COSTS, 72_001, busy=1.0) == 2
    assert processes_for(COSTS, 72_000, busy=0.5) == 2
    with pytest.raises(ValueError, match="3,600,000 files an hour"):
        processes_for(COSTS, 3_600_000)


def test_a_queue_empties_by_what_is_spare():
    site = Site(processes=1, processors=2)
    assert seconds_to_clear(COSTS, site, 200) == pytest.approx(10)
    assert seconds_to_clear(COSTS, site, 200, arriving=10) == pytest.approx(20)
    assert seconds_to_clear(COSTS, site, 200, arriving=20) == math.inf


def test_one_process_waits_as_the_textbook_says():
    site = Site(processes=1, processors=8)
    # M/M/1: load / (rate of service − rate of arrival)
    assert mean_wait_s(COSTS, site, arriving=15) == pytest.approx(0.75 / (20 - 15))
    assert mean_wait_s(COSTS, site, arriving=20) == math.inf


def test_several_processes_wait_as_a_simulated_queue_does():
    chance = random.Random(7)
    site, arriving = Site(processes=3, processors=64), 48.0
    free = [0.0] * site.processes
    now = waited = 0.0
    files = 200_000
    for _ in range(files):
        now += chance.expovariate(arriving)
        start = max(now, heapq.heappop(free))
        waited += start - now
        heapq.heappush(free, start + chance.expovariate(1 / COSTS.process_s))
    assert mean_wait_s(COSTS, site, arriving) == pytest.approx(waited / files, rel=0.1)
