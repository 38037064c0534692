"""A span for each command to MongoDB, where traces are sent and a step is being taken.

Invariant: of a command it shows its name, its collection and the shape of its filter, in which
every value is a question mark; a span is kept only until its answer.
"""

import json
from collections.abc import Mapping
from typing import Any

from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)

from samplemind import tracing
from samplemind.tracing import Role, Span

_SHOWN = ("filter", "q", "query", "pipeline", "key")
_DEPTH = 4
_LENGTH = 1000
_MOST_OPEN = 1000


class MongoSpans(CommandListener):
    """Listens to a client's commands."""

    def __init__(self) -> None:
        self._open: dict[int, Span] = {}

    def started(self, event: CommandStartedEvent) -> None:
        """Begin the span of a command."""
        # An answer that never came must not be remembered for ever.
        if not tracing.is_within_span() or len(self._open) >= _MOST_OPEN:
            return
        name = event.command_name
        collection = event.command.get(name)
        about: dict[str, str] = {"db.system.name": "mongodb", "db.operation.name": name}
        if isinstance(collection, str):
            about["db.collection.name"] = collection
        shown = {part: event.command[part] for part in _SHOWN if part in event.command}
        if shown:
            about["db.query.text"] = json.dumps(shape(shown))[:_LENGTH]
        self._open[event.request_id] = tracing.begin_span(f"mongodb {name}", Role.CLIENT, about)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """End it."""
        self._open.pop(event.request_id, tracing.NO_SPAN).end()

    def failed(self, event: CommandFailedEvent) -> None:
        """End it as failed."""
        span = self._open.pop(event.request_id, tracing.NO_SPAN)
        span.fail(str(event.failure.get("codeName", "failed")))
        span.end()


def shape(value: Any, depth: int = _DEPTH) -> Any:
    """Return what is asked for without the values: names of fields and operators only."""
    if depth and isinstance(value, Mapping):
        return {str(name): shape(part, depth - 1) for name, part in value.items()}
    if depth and isinstance(value, list):
        # A list of a thousand ids has the shape of its first.
        return [shape(part, depth - 1) for part in value[:1]]
    return "?"
