"""Huey, without results."""

import os

from huey import RedisHuey

from benchmarks.batches.peers.upsert import upsert_one

huey = RedisHuey("peer", url=os.environ["BENCH_REDIS_URL"], results=False)


@huey.task()  # type: ignore[untyped-decorator]
def upsert(file_id: str) -> None:
    upsert_one(file_id)
