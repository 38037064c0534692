"""What waits in the broker, and who is there to take it."""

import json
from collections import Counter

from samplemind.connections.redis import translating_errors
from samplemind.connections.resources import Connections
from samplemind.jobs.letters import DeathCause
from samplemind.jobs.standing import broker_standing
from samplemind.jobs.wire import HEARTBEAT_PATTERN, RoleName
from samplemind.repositories.dead_letters import DeadLetterRepository
from worker.metrics import catalogue
from worker.metrics.page import Page

_SCAN = 1000


async def read_queues(connections: Connections, page: Page) -> None:
    """Read the length and the age of every queue."""
    found = await broker_standing(connections.broker)
    for each in found.queues:
        page.put(catalogue.QUEUE_MESSAGES, each.queue.value, to=each.messages)
        page.put(catalogue.QUEUE_OLDEST, each.queue.value, to=each.oldest_s)
    page.put(catalogue.MESSAGES_LEASED, to=found.leased)
    page.put(catalogue.JOBS_DELAYED, to=found.delayed)
    page.put(catalogue.DELAYED_LATE, to=found.late_s)
    page.put(catalogue.LETTERS_INBOX, to=found.inbox)


async def read_workers(connections: Connections, page: Page) -> None:
    """Read the signs of life."""
    broker = connections.broker
    with translating_errors():
        keys = [key async for key in broker.scan_iter(HEARTBEAT_PATTERN, count=_SCAN)]
        texts = await broker.mget(keys) if keys else []
    signs = [json.loads(text) for text in texts if text is not None]  # none: it lapsed meanwhile
    alive = Counter(sign["role"] for sign in signs)
    failing = Counter(sign["role"] for sign in signs if sign.get("problem"))
    for role in RoleName:
        if role is not RoleName.CONSOLE:  # it leaves no sign: it serves these figures
            page.put(catalogue.WORKERS, role.value, to=alive[role.value])
            page.put(catalogue.WORKERS_FAILING, role.value, to=failing[role.value])


async def read_letters(connections: Connections, page: Page) -> None:
    """Read how many dead letters wait for somebody."""
    async with connections.postgres.session() as session:
        found = await DeadLetterRepository(session).count_open()
    for cause in DeathCause:
        page.put(catalogue.LETTERS, cause.value, to=found.get(cause.value, 0))
