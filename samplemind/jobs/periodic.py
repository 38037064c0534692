"""What recurs, as beat knows it and leaves it in Redis for whoever watches.

Invariant: a message of a periodic job carries its slot in a header; of all messages with one slot
exactly one runs. The table in Redis is what beat sends by now, so `status`, the watchdog and
`schedule list` judge what is meant to happen and not what some other version of the code says.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4, uuid5

from samplemind.jobs.times import When, parse_when
from samplemind.jobs.wire import KEY_PREFIX

SLOT_HEADER = "samplemind_slot"
"""Header with the slot of a periodic job, or with `manual:<id>` of one that an operator sent."""
SEND_HEADER = "samplemind_send"
"""Header that names one publication: two of the same slot differ, a redelivery does not."""
MANUAL = "manual:"

LEADER_KEY = f"{KEY_PREFIX}beat:leader"
SLOTS_KEY = f"{KEY_PREFIX}beat:slots"
"""Hash: job → the last slot that was sent, in Unix seconds."""
TABLE_KEY = f"{KEY_PREFIX}beat:table"
"""Hash: job → its entry as JSON."""

_NAMESPACE = UUID("5c2cb1f5-5a51-4c38-9be0-8f0d3a6a5f10")


@dataclass(frozen=True)
class Periodic:
    """One recurring job."""

    name: str
    when: When
    reason: str
    queue: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    since: datetime | None = None
    """When beat first knew it; before the first slot after that nothing is overdue."""

    def period(self, now: datetime) -> timedelta:
        """Return the time between the current slot and the next."""
        slot = self.when.latest(now)
        return self.when.following(slot) - slot

    def expires_s(self, slot: datetime) -> float:
        """Return seconds after which a message of this slot is void: before the next is sent."""
        return max(0.5, (self.when.following(slot) - slot).total_seconds() * 0.9)

    def to_json(self) -> str:
        """Return what beat leaves in Redis."""
        return json.dumps(
            {
                "when": str(self.when),
                "reason": self.reason,
                "queue": self.queue,
                "kwargs": dict(self.kwargs),
                "since": self.since.isoformat() if self.since else None,
            }
        )


def slot_text(slot: datetime) -> str:
    """Return the slot as it travels in the header."""
    return slot.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def slot_job_id(name: str, slot: str) -> UUID:
    """Return the id of the job for this slot: two beats that send it send the same job."""
    return uuid5(_NAMESPACE, f"{name} {slot}")


def slot_headers(slot: str) -> dict[str, str]:
    """Return the headers of one publication of a slot.

    It must be published without retries: a repetition is a publication of its own.
    """
    return {SLOT_HEADER: slot, SEND_HEADER: uuid4().hex}


def slot_key(name: str, slot: str) -> str:
    """Return the key under which the message that may run this slot is named."""
    return f"{KEY_PREFIX}slot:{name}:{slot}"


def read_table(stored: Mapping[str, str]) -> list[Periodic]:
    """Return the table that beat left, by name."""
    return [_from_json(name, json.loads(stored[name])) for name in sorted(stored)]


def _from_json(name: str, fields: Mapping[str, Any]) -> Periodic:
    return Periodic(
        name=name,
        when=parse_when(fields["when"], name=name),
        reason=fields["reason"],
        queue=fields["queue"],
        kwargs=fields["kwargs"],
        since=datetime.fromisoformat(fields["since"]) if fields["since"] else None,
    )
