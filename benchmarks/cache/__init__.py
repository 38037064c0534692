"""The cache beside bare redis-py, cashews, aiocache and limits, on one Valkey, in one run."""

from benchmarks.cache.bench import rows

__all__ = ["rows"]
