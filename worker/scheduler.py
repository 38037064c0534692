"""The scheduler that beat runs: Celery's own, with a sign of life at each look at the table.

Invariant: the sign is left after the due jobs were sent, so a beat that cannot send goes silent.
"""

from typing import Any

from celery.beat import PersistentScheduler

from samplemind.jobs.wire import RoleName
from samplemind.settings import get_settings
from worker.broker import connect_broker
from worker.heartbeat import beat


class BeatingScheduler(PersistentScheduler):
    """Keeps the last run of each entry in a file; one beat runs at a time."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # Never closed: Celery closes the scheduler in a signal handler, in the middle of whatever
        # the client is doing, and the process ends there.
        self._client = connect_broker(get_settings().broker)
        super().__init__(*arguments, **options)

    def tick(self, *arguments: Any, **options: Any) -> Any:
        """Send what is due; return seconds until the next look."""
        seconds = super().tick(*arguments, **options)
        beat(self._client, RoleName.BEAT, ())
        return seconds
