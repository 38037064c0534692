"""The peers' task: the platform's own indexer, over one document."""

from uuid import UUID

from samplemind.search.indexer import index_files
from worker.runtime import connections, run


def upsert_one(file_id: str) -> None:
    """Index one document, over the connections that this process keeps."""
    run(index_files(connections(), [UUID(file_id)]))
