"""Running a periodic job now, beside its schedule.

Invariant: what is sent is what beat would send (the entry that it left in Redis, its arguments, its
queue), with a slot of its own: it never takes the place of the next run.
"""

import asyncio
from uuid import uuid4

from samplemind.connections.redis import translating_errors
from samplemind.connections.resources import Connections
from samplemind.errors import NotFoundError
from samplemind.jobs.periodic import MANUAL, TABLE_KEY, Periodic, read_table
from samplemind.jobs.publishing import send_periodic


def manual_slot(job_id: str) -> str:
    """Return the slot under which such a run is recorded."""
    return f"{MANUAL}{job_id}"


async def find_periodic(connections: Connections, name: str) -> Periodic:
    """Return a periodic job as beat sends it.

    Raises:
        NotFoundError: beat sends no such job; the message names those that there are.
        StoreUnavailableError: Redis did not answer.
    """
    with translating_errors():
        stored = await connections.broker.hgetall(TABLE_KEY)
    table = {
        entry.name: entry
        for entry in read_table({_text(key): _text(value) for key, value in stored.items()})
    }
    if name not in table:
        known = ", ".join(table) or "none: no beat has run yet"
        message = f"there is no periodic job {name!r}; there are {known}"
        raise NotFoundError(message)
    return table[name]


async def run_now(connections: Connections, entry: Periodic, job_id: str | None = None) -> str:
    """Send a periodic job and return its id.

    Raises:
        StoreUnavailableError: the broker did not take it.
    """
    job_id = job_id or str(uuid4())
    await asyncio.to_thread(
        send_periodic, connections.settings, entry, job_id, slot=manual_slot(job_id)
    )
    return job_id


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
