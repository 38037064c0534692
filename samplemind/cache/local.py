"""The values that a process keeps before Redis, and how it hears that they have changed.

One connection of its own (RESP3, `CLIENT TRACKING ON BCAST`) is told of every key of the namespace
that anybody writes, deletes, evicts or lets expire; it is asked for a sign of life a few times a
second. Values are kept as bytes, so that no caller changes what another gets.

Invariant: nothing is served unless Redis was heard within the last `_TRUST_S`; a lost connection
empties the layer. A value that was read before a change of it or of one of its tags is not kept
after the news of the change, whichever came first.
"""

import asyncio
import math
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from samplemind.ending import end_tasks, is_ending
from samplemind.log import get_logger

_TRUST_S = 0.9
_PING_S = 0.25
_ANSWER_S = 0.5
_RECONNECT_S = 1.0
_NEWS_KEPT = 16_384
_MOST_VALUE_BYTES = 64 * 1024

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Kept:
    data: bytes
    tags: tuple[str, ...]
    until: float


class LocalLayer:
    """A bounded LRU of values by their stored keys."""

    def __init__(self, namespace: str, most_entries: int) -> None:
        self._namespace = namespace
        self._most = most_entries
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._by_tag: defaultdict[str, set[str]] = defaultdict(set)
        # name → number of the news that told of it, the last ones; older news count as of `_floor`.
        self._news: OrderedDict[str, int] = OrderedDict()
        self._number = 0
        self._floor = 0
        self._heard_at = float("-inf")
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._closed = False
        self._listening: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def is_trusted(self) -> bool:
        """Whether news are arriving."""
        return time.monotonic() - self._heard_at < _TRUST_S

    def get(self, stored: str) -> bytes | None:
        """Return the value's bytes, or none."""
        kept = self._kept.get(stored)
        if kept is None:
            return None
        now = time.monotonic()
        if now - self._heard_at >= _TRUST_S or now >= kept.until:
            return None
        self._kept.move_to_end(stored)
        return kept.data

    def mark(self) -> int:
        """Return what `keep` needs to know of the moment before Redis was asked."""
        return self._number

    def keep(
        self, stored: str, data: bytes, mark: int, *, ttl_s: float, tags: Sequence[str] = ()
    ) -> None:
        """Keep what Redis answered, unless news of it came since the mark."""
        if not self.is_trusted or len(data) > _MOST_VALUE_BYTES or mark < self._floor or ttl_s <= 0:
            return
        if any(self._news.get(each, 0) > mark for each in (stored, *tags)):
            return
        self._drop(stored)
        self._kept[stored] = _Kept(data, tuple(tags), time.monotonic() + ttl_s)
        for tag in tags:
            self._by_tag[tag].add(stored)
        if len(self._kept) > self._most:
            self._drop(next(iter(self._kept)))

    def forget(self, names: Iterable[str]) -> None:
        """Drop these keys, and what has these tags; what is being read of them is not kept."""
        self._number += 1
        for each in names:
            self._news[each] = self._number
            self._news.move_to_end(each)
            self._drop(each)
            for watcher in self._watchers.get(each, ()):
                watcher.set()
            for stored in list(self._by_tag.get(each, ())):
                self._drop(stored)
        while len(self._news) > _NEWS_KEPT:
            _, self._floor = self._news.popitem(last=False)

    def flush(self) -> None:
        """Drop everything, and what is being read too."""
        self._number += 1
        self._floor = self._number
        self._kept.clear()
        self._by_tag.clear()
        self._news.clear()
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.set()

    @contextmanager
    def watching(self, names: Sequence[str]) -> Iterator[asyncio.Event]:
        """Give an event that is set once one of these keys has changed within the block."""
        changed = asyncio.Event()
        for each in names:
            self._watchers[each].add(changed)
        try:
            yield changed
        finally:
            for each in names:
                self._watchers[each].discard(changed)
                if not self._watchers[each]:
                    del self._watchers[each]

    def listen(self, pool: ConnectionPool) -> None:
        """Start to listen, unless it does; on a connection made as the pool makes its own."""
        if self._most and not self._closed and (self._listening is None or self._listening.done()):
            self._listening = asyncio.create_task(self._stay_informed(pool))

    async def aclose(self) -> None:
        """Stop listening, for good."""
        self._closed = True
        if self._listening is not None:
            await end_tasks(self._listening)
        self.flush()

    async def _stay_informed(self, pool: ConnectionPool) -> None:
        while not is_ending():
            connection = pool.connection_class(**{**pool.connection_kwargs, "protocol": 3})
            try:
                await self._hear(connection)
            except (RedisError, OSError, TimeoutError) as error:
                _log.info("cache.local_layer_deaf", error=type(error).__name__)
            finally:
                self._heard_at = float("-inf")
                self.flush()
                with suppress(RedisError, OSError, TimeoutError):
                    await connection.disconnect(nowait=True)
            await asyncio.sleep(_RECONNECT_S)

    async def _hear(self, connection: AbstractConnection) -> None:
        await connection.connect()  # type: ignore[no-untyped-call]
        parser: Any = connection._parser
        parser.set_invalidation_push_handler(self._take_news)
        await connection.send_command(
            "CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", self._namespace
        )
        await connection.read_response(disconnect_on_error=False)
        sent_at: deque[float] = deque()
        asking = asyncio.create_task(_ask_repeatedly(connection, sent_at))
        try:
            while not is_ending():
                async with asyncio.timeout(_ANSWER_S):
                    answer = await connection.read_response(timeout=math.inf, push_request=True)
                if answer is not None and sent_at:
                    # Answers and news come in order: all news from before the question are here.
                    self._heard_at = sent_at.popleft()
        finally:
            await end_tasks(asking)

    async def _take_news(self, push: Sequence[Any]) -> None:
        names = push[1]
        if names is None:  # FLUSHDB, FLUSHALL
            self.flush()
        else:
            self.forget(each.decode(errors="replace") for each in names)

    def _drop(self, stored: str) -> None:
        kept = self._kept.pop(stored, None)
        if kept is None:
            return
        for tag in kept.tags:
            holders = self._by_tag[tag]
            holders.discard(stored)
            if not holders:
                del self._by_tag[tag]


async def _ask_repeatedly(connection: AbstractConnection, sent_at: deque[float]) -> None:
    while not is_ending():
        sent_at.append(time.monotonic())
        await connection.send_command("PING")
        await asyncio.sleep(_PING_S)
