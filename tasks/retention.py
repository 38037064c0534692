"""The job that takes away what nobody may keep or needs any more."""

from typing import Any

from samplemind.jobs.payloads import RunRetention
from samplemind.maintenance.retention_run import run_retention
from worker.app import app
from worker.runtime import connections, run
from worker.task import Job

_HOURS = {"soft_time_limit": 6 * 3600, "time_limit": 6 * 3600 + 60}


@app.task(base=Job, name=RunRetention.job_name, **_HOURS)
def run_policies() -> dict[str, Any]:
    """Apply every policy; what is not done at the end of the window is done the next time."""
    report = run(run_retention(connections(), dry_run=False))
    return {"deleted": {each.policy: each.deleted for each in report.done}}
