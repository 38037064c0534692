"""What each kind of batch does with the library, also when it is done twice or cut off."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from samplemind.batches import Work, find_kind, progress, retry_failed
from samplemind.batches.submit import write_batch, write_batch_of_owner
from samplemind.documents import BatchState
from samplemind.errors import InvalidInputError
from samplemind.models.search_document import SearchDocument
from samplemind.repositories.analyses import AnalysisRepository
from samplemind.repositories.audio_files import AudioFileRepository
from samplemind.repositories.batch_items import Chunk
from samplemind.search.indexer import drain


async def work(bench: Any, batch_id: UUID, job_id: str = "job") -> None:
    """Do the first chunk of a batch, as its kind does."""
    from samplemind.repositories.batch_jobs import BatchJobRepository

    job = await BatchJobRepository().get(batch_id)
    given = Work(
        bench.connections,
        Chunk(batch_id, 0, job.total - 1),
        job_id,
        run=bench.run,
        queue_drain=lambda: None,
    )
    await asyncio.to_thread(find_kind(job.kind).work, given)


@pytest.fixture
async def library(bench: Any) -> list[Path]:
    """Three files that were analysed and indexed."""
    paths: list[Path] = bench.write(*["analyzed"] * 3)
    batch = await bench.plan(paths)
    await bench.analyze(batch.batch_id, 0, 2)
    await drain(bench.connections)
    assert len(await indexed(bench)) == 3
    return paths


async def indexed(bench: Any) -> set[UUID]:
    async with bench.connections.postgres.session() as session:
        return set(await session.scalars(select(SearchDocument.file_id)))


async def test_delete_takes_files_their_analyses_and_rows_away_and_leaves_the_disk(
    bench: Any, library: list[Path]
) -> None:
    plan = await write_batch(bench.connections, library[:2], kind="delete")
    await work(bench, plan.batch_id)

    assert [file.path for file in await bench.files()] == [str(library[2])]
    assert len(await bench.results()) == 1
    assert len(await indexed(bench)) == 1
    assert all(path.exists() for path in library)
    assert await bench.states(plan.batch_id) == ["done", "done"]


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (AudioFileRepository, "delete_many"),
        (AnalysisRepository, "delete_of_files"),
    ],
)
async def test_a_deletion_that_died_is_completed_by_its_redelivery(
    bench: Any, library: list[Path], monkeypatch: pytest.MonkeyPatch, owner: Any, step: str
) -> None:
    plan = await write_batch(bench.connections, library, kind="delete")
    original = getattr(owner, step)

    class WorkerDied(BaseException):
        pass

    async def die(*args: Any) -> None:
        await original(*args)
        raise WorkerDied

    with monkeypatch.context() as patch:
        patch.setattr("samplemind.batches.bulk._give_back", lambda *_: None)
        patch.setattr(owner, step, die)
        with pytest.raises(WorkerDied):
            await work(bench, plan.batch_id)
    await work(bench, plan.batch_id)

    assert await bench.states(plan.batch_id) == ["done"] * 3
    assert not await bench.files()
    assert not await bench.results()
    assert not await indexed(bench)


async def test_what_the_library_does_not_have_is_skipped(bench: Any, tmp_path: Path) -> None:
    plan = await write_batch(bench.connections, [tmp_path / "none.wav"], kind="delete")
    await work(bench, plan.batch_id)
    assert await bench.states(plan.batch_id) == ["skipped"]


async def test_a_folder_stands_for_the_files_of_the_library_below_it(
    bench: Any, library: list[Path], tmp_path: Path
) -> None:
    for path in library:
        path.unlink()  # what is gone from the disk can leave the library, too
    plan = await write_batch(bench.connections, [tmp_path], kind="delete")
    assert plan.total == 3
    await work(bench, plan.batch_id)
    assert not await bench.files()


async def test_reindex_makes_lost_rows_anew(bench: Any, library: list[Path]) -> None:
    from sqlalchemy import delete

    async with bench.connections.postgres.session() as session:
        await session.execute(delete(SearchDocument))
    plan = await write_batch(bench.connections, [], kind="reindex")
    await work(bench, plan.batch_id)
    assert await indexed(bench) == {file.id for file in await bench.files()}
    assert await bench.states(plan.batch_id) == ["done"] * 3


async def test_reanalyze_is_about_what_an_older_analyser_has_seen(
    bench: Any, library: list[Path]
) -> None:
    from samplemind.audio.analysis import ANALYZER_VERSION
    from samplemind.documents import AudioFile

    await AudioFile.get_pymongo_collection().update_one(
        {"path": str(library[0])}, {"$set": {"analyzer_version": ANALYZER_VERSION}}
    )
    plan = await write_batch_of_owner(bench.connections, "reanalyze", None)
    items = await bench.items(plan.batch_id)
    assert sorted(item.path for item in items) == sorted(map(str, library[1:]))

    library[1].unlink()
    await work(bench, plan.batch_id)  # the real analyser; these are no sounds

    now = await progress(bench.connections, plan.batch_id)
    assert (now.state, now.failed) == (BatchState.RUNNING, 2)
    assert await retry_failed(bench.connections, plan.batch_id) == 2


async def test_a_batch_over_nothing_named_is_refused_where_files_are_needed(bench: Any) -> None:
    with pytest.raises(InvalidInputError, match="at least one"):
        await write_batch(bench.connections, [], kind="analyze")
    with pytest.raises(InvalidInputError, match="needs files"):
        await write_batch_of_owner(bench.connections, "analyze", None)
