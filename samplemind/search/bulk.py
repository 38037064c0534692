"""When so much was indexed that the planner's statistics of the search tables should follow.

Invariant: what was written is counted after its commit, over all workers, and the count is
forgotten only after somebody was told: at worst the tables are analyzed once more than needed.
"""

from redis.asyncio import Redis

from samplemind.connections.redis import translating_errors
from samplemind.jobs.wire import KEY_PREFIX

BULK = 5_000
"""Files; fewer shift no plan, and the nightly upkeep sees them."""

WRITTEN_KEY = f"{KEY_PREFIX}index:written"


async def count_written(broker: Redis, files: int) -> bool:
    """Count files that the index gained or lost; return whether they are a bulk by now.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """
    if not files:
        return False
    with translating_errors():
        return int(await broker.incrby(WRITTEN_KEY, files)) >= BULK


async def forget_written(broker: Redis) -> None:
    """Begin to count anew, after the analysis was sent.

    Raises:
        StoreUnavailableError: Redis did not answer.
    """
    with translating_errors():
        await broker.delete(WRITTEN_KEY)
