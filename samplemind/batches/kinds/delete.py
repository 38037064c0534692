"""Taking files out of the library: their documents, their analyses, their rows in the index and in
collections. The audio files on the disk are never touched.
"""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.batches.bulk import library_of, work_in_bulk
from samplemind.batches.chunks import ChunkReport
from samplemind.batches.claims import Claim, ClaimedItem
from samplemind.batches.kind import Kind, Work
from samplemind.batches.outcomes import ItemOutcome
from samplemind.connections.resources import Connections
from samplemind.documents.batch_item import ItemState
from samplemind.jobs.payloads import WorkBatch
from samplemind.repositories.analyses import AnalysisRepository
from samplemind.repositories.audio_files import AudioFileRepository
from samplemind.repositories.collections import AudioCollectionRepository
from samplemind.search.indexer import delete_files


async def _delete(
    connections: Connections, claim: Claim, items: Sequence[ClaimedItem]
) -> list[ItemOutcome]:
    ids = [claim.file_id(item) for item in items]
    present = {file.id for file in await AudioFileRepository().find_many(ids)}
    # The file's document first: without it nothing shows the rest, and a repeat removes that.
    await AudioFileRepository().delete_many(ids)
    await AnalysisRepository().delete_of_files(ids)

    async def forget(session: AsyncSession) -> None:
        await AudioCollectionRepository(session).forget_files(ids)

    await connections.postgres.run(forget, idempotent=True)
    await delete_files(connections, ids)
    # At a repeat, what is gone was most likely removed by the run before.
    return [
        ItemOutcome(
            item,
            ItemState.DONE if file_id in present or item.claims > 1 else ItemState.SKIPPED,
            audio_file_id=file_id,
        )
        for item, file_id in zip(items, ids, strict=True)
    ]


def work(given: Work) -> ChunkReport:
    """Delete the files of a chunk; those that the library does not have are skipped."""
    return work_in_bulk(given, _delete)


KIND = Kind(
    "delete",
    "takes files out of the library, not off the disk",
    job=WorkBatch,
    work=work,
    select=library_of,
    chunk_size=500,
    destroys=True,
)
