"""The job that tells of a batch's end is published once, wherever its sender dies."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from celery import Celery

from samplemind.batches import cancel, finish, plan, retry_failed, send_callback, send_callbacks
from samplemind.documents import Callback
from samplemind.jobs.envelope import SENT_HEADER
from samplemind.jobs.publishing import producer
from samplemind.repositories.batch_jobs import BatchJobRepository
from worker.once import publish_once

CALLBACK = Callback(name="search.index_files", arguments={"ids": []})
QUEUE = "sm:index"


class SenderDied(BaseException):
    """Stands for SIGKILL: nothing of the sender's own runs after it."""


@pytest.fixture
def app(bench: Any) -> Iterator[Celery]:
    with producer(bench.connections.settings) as app:
        yield app


class Sender:
    """Whoever tells of the end, as the last worker and each rescue do."""

    def __init__(self, bench: Any, app: Celery) -> None:
        self._bench, self._app = bench, app

    async def send(self, batch_id: UUID | None = None) -> None:
        """Send the callback of one batch, or each that is due."""
        connections, run = self._bench.connections, self._bench.run
        if batch_id is None:
            await asyncio.to_thread(send_callbacks, connections, run=run, send_once=self.once)
        else:
            await asyncio.to_thread(
                send_callback, connections, batch_id, run=run, send_once=self.once
            )

    def once(self, job_id: UUID, callback: Callback) -> None:
        publish_once(self._app, callback.name, callback.arguments, job_id)


@pytest.fixture
def sender(bench: Any, app: Celery) -> Sender:
    return Sender(bench, app)


async def finished(bench: Any, words: tuple[str, ...] = ("analyzed",)) -> UUID:
    batch = await plan(
        bench.connections, bench.write(*words), owner_id=None, chunk_size=8, callback=CALLBACK
    )
    await bench.analyze(batch.batch_id, 0, batch.total - 1)
    assert await finish(bench.connections, batch.batch_id)
    return batch.batch_id


async def published(bench: Any) -> int:
    return int(await bench.connections.broker.llen(QUEUE))


async def test_a_callback_is_sent_once_whoever_tries(bench: Any, sender: Sender) -> None:
    batch_id = await finished(bench)
    await asyncio.gather(*(sender.send(batch_id) for _ in range(4)), sender.send())
    assert await published(bench) == 1


@pytest.mark.parametrize("step", ["before", "published", "noted"])
async def test_a_sender_that_dies_at_any_step_is_made_up_for(
    bench: Any, sender: Sender, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    batch_id = await finished(bench)
    note, once = BatchJobRepository.note_callback, sender.once

    async def die_noting(*args: Any) -> bool:
        if step == "noted":
            await note(*args)
        raise SenderDied

    def die_sending(*_: Any) -> None:
        raise SenderDied

    with monkeypatch.context() as patch:
        patch.setattr(BatchJobRepository, "note_callback", die_noting)
        if step == "before":
            patch.setattr(sender, "once", die_sending)
        with pytest.raises(SenderDied):
            await sender.send(batch_id)
    assert sender.once == once
    for _ in range(2):
        await sender.send()

    assert await published(bench) == 1
    assert await BatchJobRepository().list_callbacks_due() == []


async def test_a_retry_does_not_tell_again_and_a_cancellation_never(
    bench: Any, sender: Sender
) -> None:
    batch_id = await finished(bench, ("rejected:unreadable",))
    await sender.send(batch_id)
    await retry_failed(bench.connections, batch_id)
    await bench.analyze(batch_id, 0, 0, "again")
    assert await finish(bench.connections, batch_id)
    other = await plan(bench.connections, [Path("/a.wav")], owner_id=None, callback=CALLBACK)
    await cancel(bench.connections, other.batch_id)
    await sender.send(batch_id)
    await sender.send(other.batch_id)
    await sender.send()
    assert await published(bench) == 1


async def test_it_is_the_message_that_celery_itself_would_send(bench: Any, app: Celery) -> None:
    import json

    job_id = UUID(int=7)
    assert publish_once(app, CALLBACK.name, CALLBACK.arguments, job_id)
    assert not publish_once(app, CALLBACK.name, CALLBACK.arguments, job_id)
    app.send_task(CALLBACK.name, kwargs=CALLBACK.arguments, queue="index", task_id=str(job_id))
    plain, ours = (json.loads(text) for text in await bench.connections.broker.lrange(QUEUE, 0, -1))
    for message in (plain, ours):
        message["properties"].pop("delivery_tag")
        # Where the worker's own app is loaded as well, it says when each message was sent.
        message["headers"].pop(SENT_HEADER, None)
    assert ours == plain
