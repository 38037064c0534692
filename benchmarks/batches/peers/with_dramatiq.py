"""Dramatiq, with its middleware as it comes."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.batches.peers.upsert import upsert_one

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_REDIS_URL"]))


@dramatiq.actor(queue_name="peer")
def upsert(file_id: str) -> None:
    upsert_one(file_id)
