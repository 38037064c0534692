"""Audio files as the analysis leaves them in MongoDB, for tests that start behind it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from samplemind.connections.resources import Connections
from samplemind.documents.analysis_result import (
    AnalysisResult,
    AnalysisType,
    analysis_result_id,
)
from samplemind.documents.audio_file import AudioFile, FileStatus, audio_file_id
from samplemind.search.indexer import index_files

CONTENT_HASH = "0" * 64
EMBEDDING_VERSION = "test-1"


def unit_vector(seed: int) -> NDArray[np.float32]:
    """Return a random unit vector of shape (128,)."""
    vector = np.random.default_rng(seed).standard_normal(128).astype("<f4")
    return vector / np.linalg.norm(vector)


async def add_file(
    path: str,
    *,
    owner_id: UUID | None = None,
    vector: NDArray[np.float32] | None = None,
    **fields: Any,
) -> AudioFile:
    """Write an analysed file; the documents' models must be bound already."""
    now = datetime.now(UTC)
    file_id = audio_file_id(owner_id, Path(path))
    analysis = AnalysisResult(
        id=analysis_result_id(file_id, CONTENT_HASH, AnalysisType.FEATURES, "test", "1"),
        audio_file_id=file_id,
        content_hash=CONTENT_HASH,
        analysis_type=AnalysisType.FEATURES,
        analyzer_name="test",
        analyzer_version="1",
        embedding=None if vector is None else vector.astype("<f4").tobytes(),
        embedding_version=None if vector is None else EMBEDDING_VERSION,
        seconds=0.01,
        created_at=now,
    )
    file = AudioFile(
        id=file_id,
        owner_id=owner_id,
        path=path,
        content_hash=CONTENT_HASH,
        observed_at=now,
        **{
            "title": Path(path).stem.replace("_", " "),
            "status": FileStatus.ANALYZED,
            "revision": 1,
            **fields,
        },
        analysis_id=analysis.id,
        created_at=now,
        updated_at=now,
    )
    await analysis.save()
    await file.save()
    return file


async def change_vector(file: AudioFile, vector: NDArray[np.float32]) -> None:
    """Let a newer analysis of the file have found this vector."""
    version = str(file.revision + 1)
    analysis = await AnalysisResult.get(file.analysis_id)
    assert analysis is not None
    newer = analysis.model_copy(
        update={
            "id": analysis_result_id(file.id, CONTENT_HASH, AnalysisType.FEATURES, "test", version),
            "analyzer_version": version,
            "embedding": vector.astype("<f4").tobytes(),
            "embedding_version": EMBEDDING_VERSION,
        }
    )
    await newer.insert()
    await file.set({"revision": file.revision + 1, "analysis_id": newer.id})


async def delete_file(file: AudioFile) -> None:
    """Take the file and its analyses out of the library."""
    await AnalysisResult.find(AnalysisResult.audio_file_id == file.id).delete()
    await file.delete()


async def index_names(
    connections: Connections, *names: str, owner_id: UUID | None = None
) -> list[UUID]:
    """Index files of these names; return their ids."""
    await connections.documents()
    files = [await add_file(f"/{name}.wav", owner_id=owner_id) for name in names]
    await index_files(connections, [file.id for file in files])
    return [file.id for file in files]
