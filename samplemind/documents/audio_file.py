"""One audio file of the library: everything that lists, filters and the search index read.

Invariant: one document for each owner and path, whose id follows from both, so that two workers
who meet a new file make the same document. `revision` rises with every real change and with
nothing else: the search index compares it. The numbers are those of the analysis that
`analysis_id` names; older analyses stay in `analysis_results`.
"""

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid5

from beanie import Document
from pydantic import Field

from samplemind.documents.text import Name, Prose, StoredPath, Tag, store_path

MOST_TAGS = 64
MOST_FLAGS = 32

# Any fixed value does: it only keeps these names apart from other version 5 UUIDs.
_NAMESPACE = UUID("7d9cbe86-1d9b-4c5e-8f58-8e0b6f3f6f5a")


class FileStatus(StrEnum):
    """What became of a file at its last analysis."""

    PENDING = "pending"
    ANALYZED = "analyzed"
    TRUNCATED = "truncated"
    SILENT = "silent"
    SHORT = "short"
    REJECTED = "rejected"


UNSEARCHABLE = (FileStatus.PENDING, FileStatus.REJECTED)
"""Files of which nothing is known that could be searched; the index leaves them out."""


class AudioFile(Document):
    """An audio file and what is known of it.

    Attributes:
        owner_id: a user; None for the library's own files, which everybody sees.
        path: as `store_path` writes it; `load_path` gives the path back.
        content_hash: SHA-256 in hex; None where the content could not be read.
        observed_at: when the content was looked at; a later look wins over an earlier one.
        outcome: "analyzed", "silent", "rejected:<reason>", ...
        message: one sentence on the outcome, for the file's owner.
        language: English name of the language of its texts; None: the deployment's.
        kind: "one_shot" or "loop".
        name_evidence: what the file's name says, kept apart from what was measured.
        batch_id: the batch that wrote this last.
    """

    id: UUID  # type: ignore[assignment]  # Beanie's own default is an ObjectId
    owner_id: UUID | None = None
    path: StoredPath
    content_hash: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    size_bytes: int | None = Field(None, ge=0)
    observed_at: datetime
    title: Name
    pack: Name | None = None
    description: Prose | None = None
    artist: Name | None = None
    language: Name | None = None
    format: Name | None = None
    codec: Name | None = None
    duration_s: float | None = None
    sample_rate_hz: int | None = None
    channels: int | None = None
    bit_depth: int | None = None
    status: FileStatus = FileStatus.PENDING
    outcome: Name | None = None
    message: Prose | None = None
    tags: Annotated[list[Tag], Field(max_length=MOST_TAGS)] = Field(default_factory=list)
    kind: Name | None = None
    tempo_bpm: float | None = None
    tempo_confidence: float | None = None
    tempo_alternative_bpm: float | None = None
    key: Name | None = None
    key_confidence: float | None = None
    key_relative: Name | None = None
    root_note: Name | None = None
    loudness_lufs: float | None = None
    peak_dbfs: float | None = None
    flags: Annotated[list[Name], Field(max_length=MOST_FLAGS)] = Field(default_factory=list)
    name_evidence: dict[str, Any] = Field(default_factory=dict)
    analysis_id: UUID | None = None
    analyzer_version: Name | None = None
    batch_id: UUID | None = None
    created_at: datetime
    updated_at: datetime
    revision: int = 0

    class Settings:
        """The collection."""

        name = "audio_files"


def audio_file_id(owner_id: UUID | None, path: Path) -> UUID:
    """Return the id of the document for this owner's file."""
    return uuid5(_NAMESPACE, f"{owner_id or ''}:{store_path(path)}")
