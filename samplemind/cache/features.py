"""Features and embeddings of sounds, by content and analyser: copies of one file share them.

Staleness allowed: none that matters. A result of one analyser version for one content never
changes; a re-analysis that lands makes what is cached of that content invalid nevertheless, so that
"there is none" does not outlive it.

Invariant: vectors travel as bytes, float32 little-endian, never as JSON.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samplemind.cache.cached import ComputedCache, Policy
from samplemind.cache.keys import key
from samplemind.cache.redis_cache import DAY
from samplemind.repositories.analyses import AnalysisRepository
from samplemind.repositories.audio_files import AudioFileRepository

_POLICY = Policy(ttl=DAY, negative_ttl=timedelta(minutes=1))


@dataclass(frozen=True, slots=True)
class AudioFeatures:
    """What an analysis keeps of a sound.

    Attributes:
        embedding: float32, shape (n,), unit length; none where nothing was measured.
        embedding_version: vectors of two versions must not be compared.
        blocks: raw features by name, float32, shape (n,).
    """

    embedding: NDArray[np.float32] | None
    embedding_version: str | None
    blocks: dict[str, NDArray[np.float32]]


class AudioFeatureCache:
    """Features by content hash and analyser version."""

    def __init__(self, cached: ComputedCache) -> None:
        self._cached = cached

    async def get(self, content_hash: str, analyzer_version: str) -> AudioFeatures | None:
        """Return the features, or none where this analyser has not seen this content.

        The documents' models must be bound: `await connections.documents()` comes first.

        Raises:
            StoreUnavailableError: MongoDB did not answer, and the cache has no copy.
        """

        async def load() -> list[Any] | None:
            analysis_id = await AudioFileRepository().find_analysis(content_hash, analyzer_version)
            if analysis_id is None:
                return None
            sound = (await AnalysisRepository().find_sounds([analysis_id])).get(analysis_id)
            if sound is None:
                return None
            blocks = {
                name: np.frombuffer(block, "<f2").astype("<f4").tobytes()
                for name, block in sound.blocks.items()
            }
            return [sound.embedding, sound.embedding_version, blocks]

        place = key("features", content_hash, analyzer_version)
        stored = await self._cached.fetch(place, load, _POLICY, (_tag(content_hash),))
        return None if stored is None else _features(stored)

    async def invalidate(self, content_hashes: Collection[str]) -> None:
        """Forget what is cached of these contents, because a re-analysis of them has landed."""
        await self._cached.invalidate(*map(_tag, content_hashes))


def _tag(content_hash: str) -> str:
    return f"content.{content_hash}"


def _features(stored: list[Any]) -> AudioFeatures:
    embedding, version, blocks = stored
    return AudioFeatures(
        None if embedding is None else np.frombuffer(embedding, "<f4"),
        version,
        {name: np.frombuffer(block, "<f4") for name, block in blocks.items()},
    )
