"""What the broker does when it is full: one that evicts loses jobs, which nobody would notice.

Invariant: it warns and changes nothing. The operator chose the broker, so the worker starts.
"""

from typing import Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks
from redis.exceptions import RedisError

from samplemind.log import get_logger
from samplemind.settings import get_settings
from worker.broker import connect_broker

_SAFE = "noeviction"

_log = get_logger(__name__)


class PolicyCheck(bootsteps.StartStopStep):
    """Looks at each connection, since the broker may be another one then."""

    requires = (Tasks,)

    def start(self, consumer: Any) -> None:
        """Warn if the broker may evict messages."""
        try:
            with connect_broker(get_settings().broker) as client:
                policy = client.info("memory").get("maxmemory_policy")
        except RedisError as error:
            _log.warning("broker_policy_unknown", error=str(error))
            return
        if policy != _SAFE:
            mend = f"set maxmemory-policy {_SAFE}"
            _log.warning("broker_may_evict_jobs", policy=policy, mend=mend)
