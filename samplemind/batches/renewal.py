"""A claim, and a place under a limit, kept while the holder's main thread is busy with a file.

An analysis may take longer than either lasts, and the thread that runs it can do nothing beside
it; so they are extended from the event loop.

Invariant: nothing is extended after the block that asked for it has ended.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from samplemind.batches.claims import Claim, extend
from samplemind.batches.running import Run
from samplemind.connections.resources import Connections
from samplemind.ending import end_tasks
from samplemind.errors import TransientError
from samplemind.limits import Place, leave
from samplemind.limits import extend as extend_place
from samplemind.log import get_logger

# `Settings` proves that one renewal that waits for its timeout leaves time for another.
_RENEWALS_PER_CLAIM = 3

_log = get_logger(__name__)


class _Extension(ABC):
    """Something that is extended at intervals, from the event loop.

    Attributes:
        lost: there is nothing left to extend.
        over: nothing is to be extended any more; read by the loop, set by any thread.
    """

    def __init__(self, interval_s: float) -> None:
        self.lost = False
        self.over = False
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to extend at intervals."""
        self._task = asyncio.create_task(self._repeat())

    async def stop(self) -> None:
        """End it, and wait for the end."""
        if self._task is not None:
            await end_tasks(self._task)

    @abstractmethod
    async def check(self) -> None:
        """Extend once, and see whether anything is left."""

    async def _repeat(self) -> None:
        while not self.lost:
            await asyncio.sleep(self._interval_s)
            if self.over:
                return
            await self.check()


class Renewal(_Extension):
    """What extends one claim; it is lost if the batch was cancelled, or others hold its items."""

    def __init__(self, connections: Connections, claim: Claim) -> None:
        super().__init__(connections.settings.batch.claim_s / _RENEWALS_PER_CLAIM)
        self._connections = connections
        self._claim = claim

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


class _PlaceRenewal(_Extension):
    """What extends a place under a limit."""

    def __init__(self, connections: Connections, place: Place, lease_s: float) -> None:
        super().__init__(lease_s / _RENEWALS_PER_CLAIM)
        self._connections = connections
        self._place = place
        self._lease_s = lease_s

    async def check(self) -> None:
        try:
            kept = await extend_place(self._connections.broker, self._place, lease_s=self._lease_s)
        except TransientError as error:
            _log.warning("limit_place_not_renewed", key=self._place.key, reason=str(error))
        else:
            # The work goes on: its claim says whether that still counts.
            self.lost = not kept


@contextmanager
def renewing(connections: Connections, claim: Claim, run: Run) -> Iterator[Renewal]:
    """Extend a claim as long as the block lasts."""
    renewal = Renewal(connections, claim)
    with _extending(renewal, run):
        yield renewal


@contextmanager
def keeping(connections: Connections, place: Place, run: Run, *, lease_s: float) -> Iterator[None]:
    """Extend a place under a limit as long as the block lasts, then give it up."""
    try:
        with _extending(_PlaceRenewal(connections, place, lease_s), run):
            yield
    finally:
        try:
            run(leave(connections.broker, place))
        except TransientError as error:
            _log.warning("limit_place_not_left", key=place.key, reason=str(error))


@contextmanager
def _extending(extension: _Extension, run: Run) -> Iterator[None]:
    try:
        run(extension.start())
        yield
    finally:
        # An interruption may come before the loop has seen `stop`; this it sees in any case.
        extension.over = True
        run(extension.stop())
