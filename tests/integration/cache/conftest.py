from collections.abc import AsyncIterator

import pytest

from samplemind.cache.cached import ComputedCache
from samplemind.cache.redis_cache import RedisCache
from samplemind.settings import Settings


@pytest.fixture
async def cache(stack: Settings) -> AsyncIterator[ComputedCache]:
    """A cache on an empty Redis, without a local layer."""
    redis_cache = RedisCache(stack.cache, with_local_layer=False)
    await redis_cache.redis.flushdb()
    computed = ComputedCache(redis_cache)
    yield computed
    await computed.aclose()
    await redis_cache.aclose()
