import asyncio
from contextlib import suppress

from samplemind.ending import end_tasks, is_ending


async def test_a_task_that_lost_a_cancellation_is_cancelled_again(monkeypatch):
    monkeypatch.setattr("samplemind.ending._AGAIN_S", 0.01)
    lost = 0

    async def repeat() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost += 1
                if lost == 3:
                    raise

    task = asyncio.create_task(repeat())
    await asyncio.sleep(0)
    await asyncio.wait_for(end_tasks(task), 10)
    assert task.cancelled()


async def test_tasks_that_ended_before_or_failed_are_no_trouble():
    async def fail() -> None:
        raise ValueError

    failed, done = asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(0))
    await asyncio.wait([failed, done])
    await end_tasks(failed, done)
    await end_tasks()


async def test_a_task_that_lost_its_only_cancellation_knows_that_it_is_to_end():
    turns = 0

    async def repeat() -> None:
        nonlocal turns
        while not is_ending():
            turns += 1
            with suppress(asyncio.CancelledError):  # as wait_for does by mistake
                await asyncio.sleep(60)

    task = asyncio.create_task(repeat())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait_for(task, 10)
    assert turns == 1
