"""From a file's documents to its row in the index: pure, so that it can be tested without a store.

Columns and values stand in the order of `COLUMNS`, which is the order of the COPY.
"""

from typing import Any

import numpy as np

from samplemind.documents.analysis_result import AnalysisResult
from samplemind.documents.audio_file import UNSEARCHABLE, AudioFile
from samplemind.search.text import split_words

# Column → its type in the staging table. The last four are text from which `words` is made.
COLUMNS: dict[str, str] = {
    "file_id": "uuid",
    "owner_id": "uuid",
    "revision": "int8",
    "path": "text",
    "title": "text",
    "pack": "text",
    "tags": "text[]",
    "kind": "text",
    "tempo_bpm": "float4",
    "key": "text",
    "duration_s": "float4",
    "loudness_lufs": "float4",
    "embedding": "text",
    "embedding_version": "text",
    "title_words": "text",
    "tag_words": "text",
    "pack_words": "text",
    "path_words": "text",
}


def index_row(file: AudioFile, analysis: AnalysisResult | None) -> tuple[Any, ...]:
    """Return the row's values; a file without a measured sound has words but no embedding."""
    embedding = analysis.embedding if analysis is not None else None
    tags = sorted(set(file.tags))
    return (
        file.id,
        file.owner_id,
        file.revision,
        file.path,
        file.title,
        file.pack,
        tags,
        file.kind,
        file.tempo_bpm,
        file.key,
        file.duration_s,
        file.loudness_lufs,
        vector_text(embedding) if embedding is not None else None,
        analysis.embedding_version if analysis is not None else None,
        split_words(file.title),
        " ".join(split_words(word) for word in (*tags, *_spoken(file))),
        split_words(file.pack or ""),
        split_words(file.path),
    )


def is_searchable(file: AudioFile) -> bool:
    """Return whether the file belongs in the index: its sound was looked at and not refused."""
    return file.status not in UNSEARCHABLE


def vector_text(embedding: bytes) -> str:
    """Return pgvector's text form of a stored vector, float32 little-endian of shape (n,)."""
    vector = np.frombuffer(embedding, dtype="<f4")
    return "[" + ",".join(f"{value:.6g}" for value in vector.tolist()) + "]"


def _spoken(file: AudioFile) -> list[str]:
    # What people type beside names: "128 bpm", "F# minor", "loop".
    words = [file.kind.replace("_", " ")] if file.kind else []
    if file.tempo_bpm:
        words.append(f"{round(file.tempo_bpm)} bpm")
    if file.key:
        words.append(file.key)
    return words
