"""From sounds of the library to rows of the index, by the platform's own code."""

from datetime import UTC, datetime
from typing import cast

import numpy as np

from benchmarks.search.sounds import EMBEDDING_VERSION, Chunk
from samplemind.audio.embedding import BLOCK_SIZES
from samplemind.documents.audio_file import AudioFile
from samplemind.repositories.analyses import StoredSound
from samplemind.search.quality import static_quality
from samplemind.search.rows import IndexedFile, index_file

_NOW = datetime(2026, 11, 22, tzinfo=UTC)


def index_chunk(chunk: Chunk, *, blocks: bool = True) -> list[IndexedFile]:
    """Return the rows of a chunk's files; `blocks` are numbers of the real size, not the meaning.

    A `Sound` has the attributes of an `AudioFile` that rows are made from, and costs a hundredth
    of the validated document.
    """
    raw = _blocks() if blocks else {}
    rows = []
    for sound, vector in zip(chunk.sounds, chunk.vectors, strict=True):
        stored = StoredSound(vector.tobytes(), EMBEDDING_VERSION, raw)
        file = cast("AudioFile", sound)
        quality = static_quality(file, plays=sound.plays, downloads=0, now=_NOW)
        rows.append(index_file(file, stored, quality=quality))
    return rows


def _blocks() -> dict[str, bytes]:
    rng = np.random.default_rng(9)
    return {
        name: rng.standard_normal(size).astype("<f2").tobytes()
        for name, size in BLOCK_SIZES.items()
    }
