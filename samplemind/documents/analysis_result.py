"""What one analyser found in one version of one file.

Invariant: a result never changes. Its id follows from file, content, type, analyser and version,
so a repeat is the same document and a newer analyser's result is a new one beside it.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID, uuid5

import numpy as np
from beanie import Document
from numpy.typing import NDArray
from pydantic import Field, model_validator

from samplemind.documents.text import Name
from samplemind.errors import NotFoundError

MOST_BLOCKS = 64
# A tenth of what MongoDB allows: a result that comes near holds something that belongs elsewhere.
MOST_VECTOR_BYTES = 1_600_000

_NAMESPACE = UUID("0f4be7a4-6f10-4d8f-9a43-3d3c1c7a0f0d")


class AnalysisType(StrEnum):
    """What an analysis looks at; one pass may answer several questions."""

    FEATURES = "features"


class AnalysisResult(Document):
    """One analyser's result.

    Attributes:
        content_hash: SHA-256 in hex, of what was analysed.
        measurements: numbers, texts and short lists by name, units in the names.
        blocks: raw features by name, float16 little-endian, so that a better projection needs no
            second decode.
        embedding: float32 little-endian, a unit vector; None where nothing was measured.
        embedding_version: of the projection; vectors of two versions must not be compared.
        seconds: that the analysis took.
    """

    id: UUID  # type: ignore[assignment]  # Beanie's own default is an ObjectId
    audio_file_id: UUID
    content_hash: str = Field(pattern="^[0-9a-f]{64}$")
    analysis_type: AnalysisType
    analyzer_name: Name
    analyzer_version: Name
    measurements: dict[str, Any] = Field(default_factory=dict)
    blocks: Annotated[dict[str, bytes], Field(max_length=MOST_BLOCKS)] = Field(default_factory=dict)
    embedding: bytes | None = None
    embedding_version: Name | None = None
    seconds: float = Field(ge=0)
    created_at: datetime

    class Settings:
        """The collection."""

        name = "analysis_results"

    def vector(self) -> NDArray[np.float32]:
        """Return the embedding, float32, shape (n,), unit length.

        Raises:
            NotFoundError: nothing was measured, so there is none.
        """
        if self.embedding is None:
            message = "this analysis measured no sound, so it has no embedding"
            raise NotFoundError(message)
        return np.frombuffer(self.embedding, dtype="<f4").astype(np.float32, copy=False)

    def block(self, name: str) -> NDArray[np.float16]:
        """Return one block of raw features, float16, shape (n,).

        Raises:
            NotFoundError: this analysis has no such block.
        """
        if name not in self.blocks:
            message = f"this analysis has no block {name!r}"
            raise NotFoundError(message)
        return np.frombuffer(self.blocks[name], dtype="<f2").astype(np.float16, copy=False)

    @model_validator(mode="after")
    def _vectors_are_small(self) -> "AnalysisResult":
        size = sum(map(len, self.blocks.values())) + len(self.embedding or b"")
        if size > MOST_VECTOR_BYTES:
            message = f"blocks and embedding have {size} bytes; {MOST_VECTOR_BYTES} are allowed"
            raise ValueError(message)
        return self


def analysis_result_id(
    audio_file_id: UUID,
    content_hash: str,
    analysis_type: AnalysisType,
    analyzer_name: str,
    analyzer_version: str,
) -> UUID:
    """Return the id of this analyser's result for this content of the file."""
    parts = (str(audio_file_id), content_hash, analysis_type, analyzer_name, analyzer_version)
    return uuid5(_NAMESPACE, "\n".join(parts))
