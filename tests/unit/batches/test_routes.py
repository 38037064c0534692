"""Which queue a job about batches goes to, and whether somebody takes from it in time."""

from samplemind.jobs.payloads import AnalyzeBatch, RescueBatches
from samplemind.jobs.wire import Queue, queue_for
from worker.roles import ROLES


def test_a_rescue_is_taken_before_any_index_work() -> None:
    queue = queue_for(RescueBatches.job_name)
    for role in ROLES.values():
        if queue in role.queues and Queue.INDEX in role.queues:
            assert role.queues.index(queue) < role.queues.index(Queue.INDEX)
    assert any(queue in role.queues for role in ROLES.values())


def test_a_rescue_does_not_wait_behind_the_analyses_that_it_watches() -> None:
    assert queue_for(RescueBatches.job_name) is not queue_for(AnalyzeBatch.job_name)
