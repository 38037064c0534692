"""The job that costs what the platform costs."""

from samplemind.jobs.payloads import Payload
from worker.app import app
from worker.task import Job


class Nothing(Payload):
    """Do nothing."""

    job_name = "bench.nothing"


@app.task(base=Job, name=Nothing.job_name)
def nothing() -> None:
    """Do nothing."""
