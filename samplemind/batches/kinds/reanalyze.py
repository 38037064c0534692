"""Analysing files of the library again that an older version of the analyser has seen.

Both versions' results stand side by side; the file's document and the index show the newer one. A
file that the version of today has seen, and whose content is the same, is skipped.
"""

from collections.abc import AsyncIterator
from uuid import UUID

from samplemind.batches.kind import Kind
from samplemind.batches.kinds.analyze import work
from samplemind.batches.planning import Subject
from samplemind.connections.resources import Connections
from samplemind.documents.text import load_path
from samplemind.jobs.payloads import AnalyzeBatch
from samplemind.repositories.audio_files import AudioFileRepository


async def select(connections: Connections, owner_id: UUID | None) -> AsyncIterator[Subject]:
    """Stream the owner's files that another version of the analyser has seen last."""
    from samplemind.audio.analysis import ANALYZER_VERSION

    await connections.documents()
    files = AudioFileRepository().stream_paths(owner_id, not_version=ANALYZER_VERSION)
    async for file_id, path in files:
        yield Subject(load_path(path), file_id)


KIND = Kind(
    "reanalyze",
    "analyses files again that an older analyser has seen",
    job=AnalyzeBatch,
    work=work,
    select=select,
)
