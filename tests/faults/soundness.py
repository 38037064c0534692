"""The one checker: what must be true of a platform once everything has settled.

It looks at the stores themselves and asks no code that could share the fault it looks for.
"""

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from uuid import UUID

from sqlalchemy import select

from samplemind import batches
from samplemind.connections.resources import Connections
from samplemind.documents.analysis_result import AnalysisResult
from samplemind.documents.audio_file import AudioFile
from samplemind.documents.batch_item import BatchItem
from samplemind.documents.batch_job import BatchJob, BatchState
from samplemind.errors import TransientError
from samplemind.models.search_document import SearchDocument
from tests.asynchronous import eventually

# What may be left of work that has ended: leases, claims, places, counts and locks of anybody.
LEFT_BEHIND = (
    "sm:unacked*",
    "sm:limit:running:*",
    "sm:index:dirty",
    "sm:index:claimed",
    "sm:deliveries:*",
)


async def assert_sound(
    connections: Connections,
    batch_id: UUID,
    *,
    good: Collection[Path],
    refused: Collection[Path],
    seconds: float = 90,
) -> None:
    """Wait until a batch has ended and the index has caught up, then look at everything."""

    async def finished() -> bool:
        try:
            return (await batches.progress(connections, batch_id)).state is BatchState.FINISHED
        except TransientError:
            return False  # MongoDB was killed, and comes back

    await eventually(finished, seconds=seconds, what=f"batch {batch_id} has finished")
    await eventually(
        lambda: _is_indexed(connections, len(good)), seconds=60, what="the index has caught up"
    )
    await _assert_each_item_ended_once(connections, batch_id, good, refused)
    await _assert_each_file_was_analysed_once(connections, good, refused)
    await eventually(lambda: _is_clean(connections), seconds=60, what="no key is left behind")


async def _is_indexed(connections: Connections, at_least: int) -> bool:
    try:
        rows, files = await _rows(connections), await _searchable(connections)
    except TransientError:
        return False
    return rows == files and len(rows) >= at_least


async def _rows(connections: Connections) -> list[UUID]:
    async with connections.postgres.session() as session:
        return sorted(await session.scalars(select(SearchDocument.file_id)))


async def _searchable(connections: Connections) -> list[UUID]:
    await connections.documents()
    files = await AudioFile.find({"status": {"$nin": ["rejected", "pending"]}}).to_list()
    return sorted(file.id for file in files)


async def _assert_each_item_ended_once(
    connections: Connections, batch_id: UUID, good: Collection[Path], refused: Collection[Path]
) -> None:
    await connections.documents()
    items = await BatchItem.find(BatchItem.batch_id == batch_id).to_list()
    ended = {Path(item.path): (item.state.value, item.claim, item.due_at) for item in items}
    assert len(ended) == len(items)
    expected = dict.fromkeys(good, ("done", None, None))
    expected |= dict.fromkeys(refused, ("failed", None, None))
    assert ended == expected
    job = await BatchJob.get(batch_id)
    assert job is not None
    assert job.counts == {
        "done": len(good),
        "failed": len(refused),
        **dict.fromkeys(("pending", "claimed", "skipped", "cancelled"), 0),
    }
    assert (job.callback is None) == (job.callback_sent_at is None)


async def _assert_each_file_was_analysed_once(
    connections: Connections, good: Collection[Path], refused: Collection[Path]
) -> None:
    paths = [str(path) for path in (*good, *refused)]
    files = await AudioFile.find({"path": {"$in": paths}}).to_list()
    analysed = {file.id for file in files if file.status == "analyzed"}
    assert len(analysed) == len(good)
    assert len({file.path for file in files}) == len(files)
    results = await AnalysisResult.find({"audio_file_id": {"$in": list(analysed)}}).to_list()
    assert Counter(result.audio_file_id for result in results) == Counter(analysed)


async def _is_clean(connections: Connections) -> bool:
    left = [key for pattern in LEFT_BEHIND for key in await connections.broker.keys(pattern)]
    return not left
