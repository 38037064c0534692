"""What the first page calls wrong."""

import time
from collections import defaultdict

from samplemind.jobs.standing import BrokerStanding, QueueStanding
from samplemind.jobs.wire import Queue
from worker.console.reading import Reading
from worker.console.rooms.overview import find_problems


def problems_of(*queues: QueueStanding) -> list[str]:
    found = BrokerStanding(queues, leased=0, delayed=0, late_s=0.0, inbox=0)
    readings = defaultdict(Reading, queues=Reading(found, read_at=time.monotonic()))
    return [problem.text.partition(":")[0] for problem in find_problems(readings)]


def test_a_message_is_late_by_what_its_queue_is_for() -> None:
    assert problems_of(QueueStanding(Queue.INTERACTIVE, 1, 120.0)) == ["interactive"]
    assert problems_of(QueueStanding(Queue.INTERACTIVE, 1, 30.0)) == []
    # A large batch keeps these busy, and nobody has to get up for it.
    assert problems_of(QueueStanding(Queue.AUDIO, 900, 3600.0)) == []
    assert problems_of(QueueStanding(Queue.MAINTENANCE, 2, 3600.0)) == []
