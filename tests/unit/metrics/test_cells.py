"""Numbers that the processes of a worker share."""

import os
import signal

import pytest
from prometheus_client.parser import text_string_to_metric_families

from samplemind.jobs.wire import Queue
from worker.metrics import catalogue, serving
from worker.metrics.catalogue import METRICS, Kind
from worker.metrics.cells import Cells
from worker.metrics.counting import OTHER, Lane, Outcome, lay_out


def lane(cells: Cells, number: int) -> Lane:
    return Lane(number, cells, cells.lane(number))


def page(cells: Cells) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    samples: dict[catalogue.Metric, list[tuple[tuple[str, ...], list[float]]]] = {}
    for row, numbers in cells.totals():
        samples.setdefault(row.metric, []).append((row.values, numbers))
    text = serving.render(samples).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_killed_process_loses_nothing_and_its_successor_goes_on_from_there() -> None:
    cells = lay_out(["batches.feed"], [Queue.INTERACTIVE], processes=2)
    for _ in range(2):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            mine = lane(cells, 1)
            for _ in range(1000):
                mine.add(catalogue.JOBS, "batches.feed", Outcome.SUCCEEDED.value)
            os.write(write, b"x")
            signal.pause()
        os.read(read, 1)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)
        os.close(write)
    lane(cells, 2).add(catalogue.JOBS, "batches.feed", Outcome.SUCCEEDED.value)
    key = ("samplemind_jobs_total", (("outcome", "succeeded"), ("task", "batches.feed")))
    assert page(cells)[key] == 2001


def test_observations_are_where_prometheus_looks_for_them() -> None:
    cells = lay_out(["batches.feed"], [Queue.INTERACTIVE], processes=1)
    for seconds in (0.005, 0.02, 40.0, 9000.0):
        lane(cells, 1).observe(catalogue.JOB_RUN, "batches.feed", seconds)
    found = page(cells)
    name = "samplemind_job_run_seconds"

    def bucket(bound: str) -> float:
        return found[f"{name}_bucket", (("le", bound), ("task", "batches.feed"))]

    assert [bucket(each) for each in ("0.005", "0.025", "30.0", "60.0", "7200.0", "+Inf")] == [
        1,
        2,
        2,
        3,
        3,
        4,
    ]
    assert found[f"{name}_sum", (("task", "batches.feed"),)] == pytest.approx(9040.025)
    assert found[f"{name}_count", (("task", "batches.feed"),)] == 4


def test_a_job_of_another_role_is_counted_without_a_series_of_its_own() -> None:
    cells = lay_out(["batches.feed", "search.index"], [Queue.INTERACTIVE], processes=1)
    lane(cells, 1).add(catalogue.JOBS, "search.index", Outcome.FAILED.value)
    found = page(cells)
    assert found["samplemind_jobs_total", (("outcome", "failed"), ("task", OTHER))] == 1
    assert not [labels for _, labels in found if ("task", "search.index") in labels]


def test_a_series_that_never_happened_is_there_as_zero() -> None:
    cells = lay_out(["batches.feed"], [Queue.INTERACTIVE], processes=1)
    found = page(cells)
    assert all(value == 0 for value in found.values())
    for outcome in Outcome:
        assert (
            "samplemind_jobs_total",
            (("outcome", outcome.value), ("task", "batches.feed")),
        ) in found


def test_names_follow_the_conventions() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("samplemind_")
        assert (metric.kind is Kind.COUNTER) == metric.name.endswith("_total")
        # `job` and `instance` are what Prometheus itself puts on every series.
        assert not {"id", "job_id", "owner", "path", "le", "job", "instance"} & set(metric.labels)
        assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets)
