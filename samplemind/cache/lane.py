"""One connection to the cache's Redis that all callers of a process share.

Commands are written as they come and answers are handed out in their order, so that nobody waits
for a connection and a thousand concurrent calls are a few packets. What Redis makes wait (a
blocking command) or what belongs together (a transaction) must not go here.

Invariant: a call that is not answered within the timeout fails, and with it every call on the
connection, which is then closed: an answer is never handed to another call. A caller that gives up
leaves its place in the line.
"""

import asyncio
import hashlib
import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from samplemind.ending import end_tasks, is_ending

Word = str | bytes | int | float

# Beyond it a caller waits until Redis has taken some.
_MOST_UNSENT_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script; Redis knows it by its digest once it has run."""

    source: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        """Make the digest."""
        digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "digest", digest)


class Lane:
    """The connection; it opens at its first use, and again at the next after it was lost."""

    def __init__(self, make: Callable[[], AbstractConnection], timeout_s: float) -> None:
        """Connect to nothing yet.

        Args:
            make: returns a connection without a timeout of its own.
            timeout_s: for one answer, and for opening.
        """
        self._make = make
        self._timeout_s = timeout_s
        self._connection: AbstractConnection | None = None
        self._opening: asyncio.Task[AbstractConnection] | None = None
        self._hearing: asyncio.Task[None] | None = None
        # The calls that wait for an answer, with when they were made, in the order of the answers.
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._watch: asyncio.TimerHandle | None = None

    async def send(self, *words: Word) -> Any:
        """Send one command and return its answer.

        Raises:
            ResponseError: Redis refuses it.
            RedisError: the connection failed, or no answer came in time.
        """
        connection = self._connection or await self._open()
        writer = connection._writer
        if connection is not self._connection or writer is None or writer.transport.is_closing():
            raise self._broken(connection)
        packed = connection.pack_command(*words)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        # Nothing is awaited in between: the order of the line is that of the calls.
        self._waiting.append((answer, loop.time()))
        writer.writelines(packed)
        if self._watch is None:
            self._watch = loop.call_later(self._timeout_s, self._look)
        if writer.transport.get_write_buffer_size() > _MOST_UNSENT_BYTES:
            await self._drain(connection, writer, answer)
        return await answer

    async def run(self, script: Script, keys: Sequence[str], *words: Word) -> Any:
        """Run a script and return its answer; raises as `send` does."""
        rest = (len(keys), *keys, *words)
        try:
            return await self.send("EVALSHA", script.digest, *rest)
        except NoScriptError:
            return await self.send("EVAL", script.source, *rest)

    async def aclose(self) -> None:
        """Close it; whoever still waits fails."""
        if self._opening is not None:
            await end_tasks(self._opening)
        connection, hearing = self._connection, self._hearing
        self._lose(RedisConnectionError("the connection was closed"))
        if hearing is not None:
            await end_tasks(hearing)
        if connection is not None:
            await _close(connection)

    async def _drain(
        self,
        connection: AbstractConnection,
        writer: asyncio.StreamWriter,
        answer: "asyncio.Future[Any]",
    ) -> None:
        try:
            await writer.drain()
        except OSError as error:
            answer.cancel()
            raise self._broken(connection) from error

    def _broken(self, connection: AbstractConnection) -> RedisConnectionError:
        """Return the error for one call, after all that wait on the connection were told."""
        error = RedisConnectionError("the connection broke")
        if connection is self._connection:
            self._lose(error)
        return error

    async def _open(self) -> AbstractConnection:
        if self._opening is None:
            self._opening = asyncio.create_task(self._connect())
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    def _opened(self, opening: "asyncio.Task[AbstractConnection]") -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # every caller may have given up: then nobody else asks for it

    async def _connect(self) -> AbstractConnection:
        connection = self._make()
        try:
            async with asyncio.timeout(self._timeout_s):
                await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException as error:
            await _close(connection)
            if isinstance(error, TimeoutError):
                raise RedisTimeoutError("Redis did not let us in in time") from error
            raise
        self._connection = connection
        self._hearing = asyncio.create_task(self._hear(connection))
        return connection

    async def _hear(self, connection: AbstractConnection) -> None:
        """Hand out answers until the connection ends."""
        try:
            while not is_ending():
                try:
                    found = await connection.read_response(
                        timeout=math.inf, disconnect_on_error=False
                    )
                except ResponseError as refusal:
                    found = refusal
                answer, _ = self._waiting.popleft()
                if answer.done():  # its caller gave up
                    continue
                if isinstance(found, ResponseError):
                    answer.set_exception(found)
                else:
                    answer.set_result(found)
        except (RedisError, OSError, IndexError) as error:
            if self._connection is connection:
                self._lose(RedisConnectionError(f"the connection broke ({type(error).__name__})"))
            await _close(connection)

    def _look(self) -> None:
        """Give up a connection that left its oldest call without an answer for too long."""
        self._watch = None
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        left_s = self._waiting[0][1] + self._timeout_s - loop.time()
        if left_s > 0:
            self._watch = loop.call_later(left_s, self._look)
            return
        hearing = self._hearing
        connection = self._connection
        self._lose(RedisTimeoutError("Redis did not answer in time"))
        if connection is not None and connection._writer is not None:
            connection._writer.transport.abort()
        if hearing is not None:
            hearing.cancel()

    def _lose(self, error: RedisError) -> None:
        """Forget the connection, and tell all who wait."""
        self._connection = self._hearing = None
        waiting, self._waiting = self._waiting, deque()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        for answer, _ in waiting:
            if not answer.done():
                answer.set_exception(error)


async def _close(connection: AbstractConnection) -> None:
    with suppress(RedisError, OSError, TimeoutError):
        await connection.disconnect(nowait=True)
