"""Features and embeddings of sounds, by content and analyser: copies of one file share them.

Staleness allowed: none that matters. What one version of the analyser finds in one content under
the same limits never changes, so every key names all three; a re-analysis that lands makes what
its predecessor left invalid nevertheless, and "there is none" with it.

Invariant: only what follows from the bytes is kept: no path, no owner, nothing that a name says.
Vectors travel as bytes, float32 little-endian (blocks as float16), never as JSON.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samplemind.audio.limits import AudioLimits
from samplemind.cache.cached import ComputedCache, Policy, is_bypassed
from samplemind.cache.keys import key
from samplemind.cache.redis_cache import DAY
from samplemind.log import get_logger
from samplemind.repositories.analyses import AnalysisRepository
from samplemind.repositories.audio_files import AudioFileRepository

if TYPE_CHECKING:
    # It loads scipy's filters, which a service that only searches never needs.
    from samplemind.audio.examination import Examination

_POLICY = Policy(ttl=DAY, negative_ttl=timedelta(minutes=1))

_log = get_logger(__name__)


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
        """Return the features, or none where the library has no analysis of this content.

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

    async def recall(
        self, content_hash: str, analyzer_version: str, limits: AudioLimits
    ) -> "Examination | None":
        """Return what this analyser found in this content under these limits, if it is kept."""
        from samplemind.audio.transfer import from_plain

        if is_bypassed():
            return None
        place = _examined(content_hash, analyzer_version, limits)
        raw = await self._cached.cache.get(place)
        if raw is None:
            return None
        try:
            return from_plain(raw)
        except ValueError:
            _log.warning("cache.unreadable_value", key=place, reason="it is no examination")
            return None

    async def remember(
        self, content_hash: str, analyzer_version: str, limits: AudioLimits, found: "Examination"
    ) -> None:
        """Keep what this analyser found in this content under these limits."""
        from samplemind.audio.transfer import to_plain

        if not is_bypassed():
            place = _examined(content_hash, analyzer_version, limits)
            await self._cached.cache.set(place, to_plain(found), DAY)

    async def invalidate(self, content_hashes: Collection[str]) -> None:
        """Forget what `get` has of these contents, because an analysis of them has landed."""
        await self._cached.invalidate(*map(_tag, content_hashes))

    async def forget(self, superseded: Collection[tuple[str, str]], limits: AudioLimits) -> None:
        """Forget examinations, (content, analyser version), that a re-analysis has replaced."""
        places = [_examined(content, version, limits) for content, version in superseded]
        await self._cached.cache.delete(*places)


def _tag(content_hash: str) -> str:
    return f"content.{content_hash}"


def _examined(content_hash: str, analyzer_version: str, limits: AudioLimits) -> str:
    return key("examined", content_hash, analyzer_version, limits)


def _features(stored: list[Any]) -> AudioFeatures:
    embedding, version, blocks = stored
    return AudioFeatures(
        None if embedding is None else np.frombuffer(embedding, "<f4"),
        version,
        {name: np.frombuffer(block, "<f4") for name, block in blocks.items()},
    )
