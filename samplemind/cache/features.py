"""Features and embeddings of sounds, by content and analyser: copies of one file share them.

Staleness allowed: none. What one version of the analyser finds in one content under the same limits
never changes, so a key names all three; a re-analysis that lands takes away what its predecessor
left.

Invariant: only what follows from the bytes is kept: no path, no owner, nothing that a name says.
Vectors travel as bytes, float32 little-endian (raw blocks as float16), never as JSON.
"""

from collections.abc import Callable, Collection, Coroutine
from typing import TYPE_CHECKING, Any

from samplemind.audio.limits import DEFAULT_LIMITS, AudioLimits
from samplemind.cache.computed import ComputedCache, is_bypassed
from samplemind.cache.keys import key
from samplemind.cache.redis_cache import DAY
from samplemind.log import get_logger

if TYPE_CHECKING:
    # They load scipy's filters, which a service that only searches never needs.
    from samplemind.audio.analysis import Memory
    from samplemind.audio.examination import Examination

_log = get_logger(__name__)


class AudioFeatureCache:
    """What was found in a sound (facts, measurements, blocks, embedding) by its content."""

    def __init__(self, cached: ComputedCache) -> None:
        self._cached = cached

    async def get(
        self, content_hash: str, analyzer_version: str, limits: AudioLimits = DEFAULT_LIMITS
    ) -> "Examination | None":
        """Return what this analyser found in this content under these limits, if it is kept."""
        from samplemind.audio.transfer import from_plain

        if is_bypassed():
            return None
        place = _place(content_hash, analyzer_version, limits)
        raw = await self._cached.cache.get(place)
        if raw is None:
            return None
        try:
            return from_plain(raw)
        except ValueError as error:
            _log.warning("cache.unreadable_value", key=place, reason=str(error))
            return None

    async def put(
        self,
        found: "Examination",
        content_hash: str,
        analyzer_version: str,
        limits: AudioLimits = DEFAULT_LIMITS,
    ) -> None:
        """Keep what this analyser found in this content under these limits."""
        from samplemind.audio.transfer import to_plain

        if not is_bypassed():
            place = _place(content_hash, analyzer_version, limits)
            await self._cached.cache.set(place, to_plain(found), DAY)

    async def invalidate(
        self, superseded: Collection[tuple[str, str]], limits: AudioLimits = DEFAULT_LIMITS
    ) -> None:
        """Forget what was found by (content, analyser version) that a re-analysis has replaced."""
        places = [_place(content, version, limits) for content, version in superseded]
        await self._cached.cache.delete(*places)

    def memory(
        self,
        analyzer_version: str,
        limits: AudioLimits,
        run: Callable[[Coroutine[Any, Any, Any]], Any],
    ) -> "Memory":
        """Return these features as an analysis in another thread uses them.

        Args:
            analyzer_version: of the analysis.
            limits: that it works under.
            run: runs a coroutine on the loop that owns the cache, and returns what it returns.
        """
        from samplemind.audio.analysis import Memory

        def recall(content_hash: str) -> "Examination | None":
            found: Examination | None = run(self.get(content_hash, analyzer_version, limits))
            return found

        def remember(content_hash: str, found: "Examination") -> None:
            run(self.put(found, content_hash, analyzer_version, limits))

        return Memory(recall, remember)


def _place(content_hash: str, analyzer_version: str, limits: AudioLimits) -> str:
    return key("features", content_hash, analyzer_version, limits)
