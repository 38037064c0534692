"""One process of a stampede: `python stampede.py URL KEY CALLERS COMPUTE_S LEASE_S`.

It says `ready`, waits for a line, lets its callers miss at once, and prints how many values of
which kind they got, as JSON. Each computation counts itself in Redis.
"""

import asyncio
import json
import sys
from collections import Counter

from pydantic import SecretStr

from samplemind.cache.computed import ComputedCache, Policy
from samplemind.cache.redis_cache import RedisCache
from samplemind.settings import CacheSettings


async def main(url: str, key: str, callers: int, compute_s: float, lease_s: int) -> None:
    settings = CacheSettings(url=SecretStr(url), lease_s=lease_s, timeout_ms=5000)
    cache = ComputedCache(RedisCache(settings))

    async def compute() -> int:
        number = int(await cache.cache.redis.incr(f"computed:{key}"))
        await asyncio.sleep(compute_s)
        return number

    await cache.cache.redis.ping()
    print("ready", flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.readline)
    found = await asyncio.gather(*(cache.fetch(key, compute, Policy()) for _ in range(callers)))
    print(json.dumps(Counter(found)), flush=True)  # noqa: T201
    await cache.aclose()
    await cache.cache.aclose()


if __name__ == "__main__":
    url, key, callers, compute_s, lease_s = sys.argv[1:]
    asyncio.run(main(url, key, int(callers), float(compute_s), int(lease_s)))
