"""Jobs that look after jobs."""

from samplemind.jobs.broker import JobBroker
from samplemind.jobs.dead_letters import collect, publish_replays
from samplemind.jobs.payloads import CollectDeadLetters
from worker.app import app
from worker.runtime import connections, run
from worker.task import Job


@app.task(base=Job, name=CollectDeadLetters.job_name)
def collect_dead_letters() -> None:
    """Move dead letters to where operators look, and send what is to run again."""
    run(collect(connections()))
    run(publish_replays(connections()))
    broker = JobBroker(connections().settings.broker)
    try:
        broker.forget_old()
    finally:
        broker.close()
