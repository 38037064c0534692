from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import structlog

from samplemind.carrying import carrying


def test_threads_of_a_pool_name_the_job_that_they_work_for():
    together = Barrier(3)

    def name(_):
        together.wait(10)
        return structlog.contextvars.get_contextvars().get("job_id")

    with ThreadPoolExecutor(3) as pool:
        with structlog.contextvars.bound_contextvars(job_id="one"):
            found = list(pool.map(carrying(name), range(3)))
        after = list(pool.map(name, range(3)))
    assert found == ["one"] * 3
    assert after == [None] * 3
