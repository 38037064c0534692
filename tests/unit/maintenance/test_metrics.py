from datetime import UTC, datetime

from prometheus_client import REGISTRY

from samplemind.maintenance.watchdog import JobStanding, ScheduleStanding, Standing
from worker.schedule_metrics import show

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def job(name: str, standing: Standing) -> JobStanding:
    return JobStanding(name, standing, "every 10 s", "", "index", NOW, 1.5, None, None, None, NOW)


def test_what_is_overdue_or_failing_is_a_metric() -> None:
    jobs = (job("a.late", Standing.OVERDUE), job("a.good", Standing.ON_TIME))
    show(ScheduleStanding(leader="host:1", jobs=jobs))
    overdue = {
        name: REGISTRY.get_sample_value("samplemind_periodic_overdue", {"job": name})
        for name in ("a.late", "a.good")
    }
    assert overdue == {"a.late": 1.0, "a.good": 0.0}
    assert REGISTRY.get_sample_value("samplemind_beat_leads") == 1.0
