"""A span for each command to Redis, where traces are sent and a step is being taken.

Invariant: it shows the names of commands and how many arguments they have, never a key or a value.
"""

from collections.abc import Sequence
from typing import Any

import redis
import redis.asyncio

from samplemind import tracing
from samplemind.tracing import Role, Span

_SHOWN_COMMANDS = 10


def client_class() -> type[redis.Redis]:
    """Return the class of synchronous clients."""
    return _TracedRedis if tracing.is_on() else redis.Redis


def asynchronous_client_class() -> type[redis.asyncio.Redis]:
    """Return the class of asynchronous clients."""
    return _TracedAsyncRedis if tracing.is_on() else redis.asyncio.Redis


class _TracedRedis(redis.Redis):
    def execute_command(self, *args: Any, **options: Any) -> Any:
        span = _begin([args])
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            span.fail(type(error).__name__)
            raise
        finally:
            span.end()


class _TracedAsyncRedis(redis.asyncio.Redis):
    async def execute_command(self, *args: Any, **options: Any) -> Any:
        span = _begin([args])
        try:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            span.fail(type(error).__name__)
            raise
        finally:
            span.end()

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Any:
        return _TracedPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )


class _TracedPipeline(redis.asyncio.client.Pipeline):
    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        # In redis-py each command of a pipeline is a pair of its arguments and its options.
        span = _begin([command[0] for command in self.command_stack])
        try:
            return await super().execute(raise_on_error)
        except redis.RedisError as error:
            span.fail(type(error).__name__)
            raise
        finally:
            span.end()


def _begin(commands: Sequence[Sequence[Any]]) -> Span:
    if not commands or not tracing.is_within_span():
        return tracing.NO_SPAN
    name = "PIPELINE" if len(commands) > 1 else _name(commands[0])
    text = "; ".join(
        " ".join([_name(command), *("?" for _ in command[1:20])])
        for command in commands[:_SHOWN_COMMANDS]
    )
    about: dict[str, str | int] = {
        "db.system.name": "redis",
        "db.operation.name": name,
        "db.query.text": text,
    }
    if len(commands) > 1:
        about["db.operation.batch.size"] = len(commands)
    return tracing.begin_span(f"redis {name}", Role.CLIENT, about)


def _name(command: Sequence[Any]) -> str:
    name = command[0]
    return name.decode() if isinstance(name, bytes) else str(name)
