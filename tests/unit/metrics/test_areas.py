"""What the areas say of what was found."""

from datetime import UTC, datetime, timedelta

from samplemind.maintenance.watchdog import JobStanding, ScheduleStanding, Standing
from worker.metrics import catalogue
from worker.metrics.areas.schedule import put_schedule
from worker.metrics.page import Page

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def job(name: str, standing: Standing, **more: object) -> JobStanding:
    fields = {
        "when": "every 10 s",
        "reason": "",
        "queue": "index",
        "last_started_at": NOW,
        "last_seconds": 1.5,
        "last_outcome": "succeeded",
        "last_error": None,
        "figures": None,
        "next_at": NOW + timedelta(seconds=10),
    }
    return JobStanding(name=name, standing=standing, **(fields | more))  # type: ignore[arg-type]


def found(page: Page, metric: catalogue.Metric) -> dict[tuple[str, ...], float]:
    return {values: numbers[0] for values, numbers in dict(page)[metric]}


def test_what_is_overdue_and_for_how_long_is_a_figure() -> None:
    page = Page()
    late = job("a.late", Standing.OVERDUE, late_s=90.0)
    jobs = (late, job("a.good", Standing.ON_TIME))
    put_schedule(page, ScheduleStanding(leader="host:1", jobs=jobs))
    assert found(page, catalogue.PERIODIC_OVERDUE) == {("a.late",): 1.0, ("a.good",): 0.0}
    assert found(page, catalogue.PERIODIC_LATE) == {("a.late",): 90.0, ("a.good",): 0.0}
    assert found(page, catalogue.BEAT_LEADS) == {(): 1.0}


def test_the_drift_is_what_the_last_comparison_found_and_a_failed_one_tells_nothing() -> None:
    figures = {"compared": 9, "missing": 3, "stale": 0, "surplus": 1, "ahead": 0}
    page = Page()
    put_schedule(
        page,
        ScheduleStanding("host:1", (job("search.reconcile", Standing.ON_TIME, figures=figures),)),
    )
    assert found(page, catalogue.INDEX_DRIFT)[("missing",)] == 3.0
    assert found(page, catalogue.INDEX_COMPARED) == {(): NOW.timestamp()}

    failed = job("search.reconcile", Standing.FAILING, figures=figures, last_outcome="failed")
    page = Page()
    put_schedule(page, ScheduleStanding("host:1", (failed,)))
    assert catalogue.INDEX_DRIFT not in dict(page)
