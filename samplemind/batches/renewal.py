"""A claim that is kept while its holder's main thread is busy with a file.

An analysis may take longer than a claim lasts, and the thread that runs it can do nothing beside
it; so the claim is extended from the event loop.

Invariant: nothing is extended after the block that asked for it has ended.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from samplemind.batches.claims import Claim, extend
from samplemind.batches.running import Run
from samplemind.connections.resources import Connections
from samplemind.errors import TransientError
from samplemind.log import get_logger

# `Settings` proves that one renewal that waits for its timeout leaves time for another.
_RENEWALS_PER_CLAIM = 3

_log = get_logger(__name__)


class Renewal:
    """What extends one claim.

    Attributes:
        lost: the batch was cancelled, or other workers hold all the items.
        over: nothing is to be extended any more; read by the loop, set by any thread.
    """

    def __init__(self, connections: Connections, claim: Claim) -> None:
        self.lost = False
        self.over = False
        self._connections = connections
        self._claim = claim
        self._interval_s = connections.settings.batch.claim_s / _RENEWALS_PER_CLAIM
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to extend the claim at intervals."""
        self._task = asyncio.create_task(self._repeat())

    async def stop(self) -> None:
        """End it, and wait for the end."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def check(self) -> None:
        """Extend the claim once, and see whether it still holds anything."""
        try:
            # A connection that vanished without closing must not cost the whole claim.
            async with asyncio.timeout(self._connections.settings.mongo.timeout_ms / 1000):
                held = await extend(self._connections, self._claim)
        except (TransientError, TimeoutError) as error:
            # The next one may pass; if none does, the claim ends by itself, as it should.
            _log.warning(
                "batch_claim_not_renewed",
                batch_id=str(self._claim.batch_id),
                reason=str(error) or "MongoDB did not answer in time",
            )
        else:
            self.lost = held == 0

    async def _repeat(self) -> None:
        while not self.lost:
            await asyncio.sleep(self._interval_s)
            if self.over:
                return
            await self.check()


@contextmanager
def renewing(connections: Connections, claim: Claim, run: Run) -> Iterator[Renewal]:
    """Extend a claim as long as the block lasts."""
    renewal = Renewal(connections, claim)
    try:
        run(renewal.start())
        yield renewal
    finally:
        # An interruption may come before the loop has seen `stop`; this it sees in any case.
        renewal.over = True
        run(renewal.stop())
