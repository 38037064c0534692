"""How far a running job is, where the result backend keeps it for whoever asks by its id.

Invariant: telling it never fails the job, and happens at most once a second.
"""

import json
import time
from typing import Any

from redis.exceptions import RedisError

from samplemind.log import get_logger
from worker import tracking
from worker.task import Job

_PACE_S = 1.0

_log = get_logger(__name__)


class Progress:
    """Stores `{"done": …, "total": …, …}` under the state PROGRESS."""

    def __init__(self, job: Job) -> None:
        # Celery's request is bound to the job's thread; progress is told from the loop's.
        self._job_id: str | None = job.request.id
        self._backend: Any = job.backend
        self._told_at = 0.0

    def tell(self, done: int, total: int | None = None, **facts: str) -> None:
        """Store how far the job is, unless that was told within the last second."""
        now = time.monotonic()
        if self._job_id is None or now - self._told_at < _PACE_S:
            return
        self._told_at = now
        facts_now = {"done": done, "total": total, **facts}
        try:
            tracking.tell_progress(self._job_id, json.dumps(facts_now))
            self._backend.store_result(self._job_id, facts_now, "PROGRESS")
        except RedisError as error:
            _log.info("progress_not_told", error=str(error))
