"""Keeping the cache warm."""

import dataclasses
from typing import Any

from samplemind.cache.warming import warm
from samplemind.jobs.payloads import WarmCache
from worker.app import app
from worker.runtime import connections, run
from worker.task import Job


@app.task(base=Job, name=WarmCache.job_name, ignore_result=False)
def warm_cache() -> dict[str, Any]:
    """Make popular searches anew before they expire."""
    settings = connections().settings.cache
    return dataclasses.asdict(run(warm(connections(), within_s=settings.warm_s)))
