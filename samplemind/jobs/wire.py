"""What the platform's processes must agree on: roles, queues, routes, the broker and its keys.

Invariant: all sides take these from here, so a message that is published is a message that some
worker consumes, and a sign of life that is left is one that `samplemind status` finds. This module
never imports Celery or Kombu; it holds plain values for them.
"""

import ssl
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Producers import this module; reading settings costs them as much as all the rest.
    from samplemind.settings import BrokerSettings

KEY_PREFIX = "sm:"
"""Before every key of ours in the broker's Redis, so that it may be shared."""


class RoleName(StrEnum):
    """What a process of the platform is there for; `worker.roles` says how each works."""

    AUDIO = "audio"
    INDEX = "index"
    MAINTENANCE = "maintenance"
    BEAT = "beat"
    CONSOLE = "console"


HEARTBEAT_LIFE_S = 15
"""Seconds after which a sign of life that is not renewed has lapsed."""
HEARTBEAT_PATTERN = f"{KEY_PREFIX}heartbeat:*:*:*"
"""Matches the key of every sign of life, for SCAN."""


def heartbeat_key(role: str, host: str, pid: int) -> str:
    """Return the key of one process's sign of life: each has its own, so none hides another."""
    return f"{KEY_PREFIX}heartbeat:{role}:{host}:{pid}"


class Queue(StrEnum):
    """The queues, by kind of work, so that one kind never waits behind another."""

    INTERACTIVE = "interactive"  # somebody waits for the answer
    AUDIO = "audio"  # keeps a core busy for seconds
    INDEX = "index"  # writes the search index
    MAINTENANCE = "maintenance"  # minutes to hours, no hurry
    DEFAULT = "default"  # everything short


ROUTES: tuple[tuple[str, Queue], ...] = (
    ("batches.analyze", Queue.AUDIO),
    ("batches.rescue", Queue.INTERACTIVE),  # lost work must not wait behind a long queue
    ("batches.feed", Queue.INTERACTIVE),
    ("batches.*", Queue.DEFAULT),
    ("search.rebuild", Queue.MAINTENANCE),
    ("search.refresh_vocabulary", Queue.MAINTENANCE),
    ("search.optimize", Queue.MAINTENANCE),
    ("search.*", Queue.INDEX),
    ("jobs.*", Queue.INTERACTIVE),  # keeps the promises that are made to producers
    ("backups.archive_wal", Queue.DEFAULT),  # it must not wait behind a backup that takes hours
    ("backups.*", Queue.MAINTENANCE),
    ("maintenance.watch", Queue.INTERACTIVE),  # it must not wait behind what it watches
    ("maintenance.*", Queue.MAINTENANCE),
    ("retention.*", Queue.MAINTENANCE),
)
"""Pattern of a job's name → its queue; the first that fits holds."""


@lru_cache(maxsize=1000)
def queue_for(job_name: str) -> Queue:
    """Return the queue of the job with that name; what fits no route is short work."""
    for pattern, queue in ROUTES:
        if fnmatchcase(job_name, pattern):
            return queue
    return Queue.DEFAULT


def queue_keys(queue: str) -> list[str]:
    """Return the keys of a queue's lists in Redis, one for each step of Kombu's priorities."""
    key = f"{KEY_PREFIX}{queue}"
    return [key, *(f"{key}\x06\x16{step}" for step in (3, 6, 9))]


def transport_options(broker: "BrokerSettings") -> dict[str, Any]:
    """Return Kombu's options for the Redis transport, the same for producers and workers."""
    return {
        "global_keyprefix": KEY_PREFIX,
        # A message whose lease is older than this is given to another worker. Seconds are enough,
        # whatever a job takes, because a living worker renews its leases (worker.lease).
        "visibility_timeout": broker.lease_s,
        # Kombu looks for expired leases every interval × throttle seconds: 10 × 10 by default.
        "unacked_restore_interval": broker.sweep_s,
        "unacked_restore_throttle": 1,
        # Bounds one search, so that a thousand lost messages do not stall a consumer's loop.
        "unacked_restore_limit": 500,
        # A worker killed in the middle of a search would hold its lock for five minutes.
        "unacked_mutex_expire": max(5, 2 * broker.sweep_s),
        # Without these, a publish waits for ever on a broker that vanished without closing.
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        # A BRPOP whose answer is overdue by this many seconds is sent on a new connection.
        "health_check_interval": 10,
        "max_connections": 50,
        "client_name": "samplemind",
        # A worker of several queues takes from the first that has something.
        "queue_order_strategy": "priority",
    }


def tls_options(broker: "BrokerSettings") -> dict[str, Any] | None:
    """Return what Celery asks for beside a rediss:// URL: that the certificate is checked."""
    encrypted = broker.url is not None and broker.url.get_secret_value().startswith("rediss://")
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED} if encrypted else None
