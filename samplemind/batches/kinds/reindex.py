"""Making the index rows of files anew, whatever version the index has."""

from collections.abc import Sequence

from samplemind.batches.bulk import library_of, work_in_bulk
from samplemind.batches.chunks import ChunkReport
from samplemind.batches.claims import Claim, ClaimedItem
from samplemind.batches.kind import Kind, Work
from samplemind.batches.outcomes import ItemOutcome
from samplemind.connections.resources import Connections
from samplemind.documents.batch_item import ItemState
from samplemind.jobs.payloads import WorkBatch
from samplemind.repositories.audio_files import AudioFileRepository
from samplemind.search.indexer import index_files


async def _reindex(
    connections: Connections, claim: Claim, items: Sequence[ClaimedItem]
) -> list[ItemOutcome]:
    ids = [claim.file_id(item) for item in items]
    await index_files(connections, ids, again=True)
    present = await AudioFileRepository().find_versions(ids)
    return [
        ItemOutcome(
            item,
            ItemState.DONE if file_id in present else ItemState.SKIPPED,
            audio_file_id=file_id,
        )
        for item, file_id in zip(items, ids, strict=True)
    ]


def work(given: Work) -> ChunkReport:
    """Reindex the files of a chunk; those that cannot be searched are skipped."""
    return work_in_bulk(given, _reindex)


KIND = Kind(
    "reindex",
    "makes the index rows of files anew",
    job=WorkBatch,
    work=work,
    select=library_of,
    chunk_size=500,
)
