"""A worker dies between any two steps of storing; the redelivered job makes it whole."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from samplemind.batches import finish, progress, recording
from samplemind.errors import StoreUnavailableError
from samplemind.repositories.analyses import AnalysisRepository
from samplemind.repositories.audio_files import AudioFileRepository
from samplemind.repositories.batch_items import BatchItemRepository

STEPS: list[tuple[object, str]] = [
    (AnalysisRepository, "insert_missing"),
    (AudioFileRepository, "write_found"),
    (recording, "mark_dirty"),
    (BatchItemRepository, "end"),
]


class WorkerDied(BaseException):
    """Stands for SIGKILL: nothing of the worker's own runs after it."""


def dying(step: Callable[..., Awaitable[Any]], *, after: bool) -> Callable[..., Awaitable[Any]]:
    async def die(*args: Any, **kwargs: Any) -> None:
        if after:
            await step(*args, **kwargs)
        raise WorkerDied

    return die


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
async def test_a_job_that_died_while_storing_is_made_whole_by_its_redelivery(
    bench: Any, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, after: bool
) -> None:
    words = ["analyzed", "silent", "rejected:unreadable", "analyzed", "analyzed"]
    batch = await bench.plan(bench.write(*words))
    with monkeypatch.context() as patch:
        patch.setattr("samplemind.batches.chunks._ChunkWork.give_back", lambda _: None)
        patch.setattr(owner, name, dying(getattr(owner, name), after=after))
        with pytest.raises(WorkerDied):
            await bench.analyze(batch.batch_id, 0, 4, "job")
    await bench.analyze(batch.batch_id, 0, 4, "job")

    assert await bench.states(batch.batch_id) == ["done", "done", "failed", "done", "done"]
    files, results = await bench.files(), await bench.results()
    assert [file.revision for file in files] == [1] * 5
    assert sorted(result.id for result in results) == sorted(
        file.analysis_id for file in files if file.analysis_id
    )
    assert len(results) == 4
    assert await bench.dirty() == {file.id for file in files}
    state = await progress(bench.connections, batch.batch_id)
    assert (state.done, state.failed, state.skipped) == (4, 1, 0)
    assert await finish(bench.connections, batch.batch_id)


async def test_what_was_stored_before_the_death_is_not_decoded_again(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await bench.plan(bench.write("analyzed", "analyzed"))
    with monkeypatch.context() as patch:
        patch.setattr("samplemind.batches.chunks._ChunkWork.give_back", lambda _: None)
        patch.setattr(recording, "mark_dirty", dying(recording.mark_dirty, after=False))
        with pytest.raises(WorkerDied):
            await bench.analyze(batch.batch_id, 0, 1)
    bench.looked_into.clear()
    await bench.analyze(batch.batch_id, 0, 1)
    assert bench.looked_into == []


async def away(*_: Any, **__: Any) -> None:
    message = "MongoDB did not answer"
    raise StoreUnavailableError(message)


async def test_a_store_that_is_away_leaves_the_claim_to_the_same_job(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await bench.plan(bench.write("analyzed", "analyzed"))
    with monkeypatch.context() as patch:
        patch.setattr(BatchItemRepository, "end", away)
        with pytest.raises(StoreUnavailableError):
            await bench.analyze(batch.batch_id, 0, 1, "job")
    assert await bench.states(batch.batch_id) == ["claimed", "claimed"]
    assert (await bench.analyze(batch.batch_id, 0, 1, "another")).claimed == 0
    assert (await bench.analyze(batch.batch_id, 0, 1, "job")).claimed == 2
    assert await bench.states(batch.batch_id) == ["done", "done"]


async def test_an_interruption_is_told_even_if_nothing_can_be_given_back(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await bench.plan(bench.write("analyzed", "analyzed"))

    def interrupt(path: Path) -> None:
        if "Loop 1" in path.name:
            raise bench.interruption

    bench.before_analysis = interrupt
    with monkeypatch.context() as patch:
        patch.setattr(BatchItemRepository, "end", away)
        with pytest.raises(bench.interruption):
            await bench.analyze(batch.batch_id, 0, 1)
    await bench.expire(batch.batch_id)
    assert await bench.rescue() == [(batch.batch_id, 0, 1)]
