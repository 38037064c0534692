"""How synchronous work reaches the event loop that owns the connections."""

from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Run(Protocol):
    """Runs a coroutine on the loop that owns the connections, and returns its result."""

    def __call__(self, coroutine: Coroutine[Any, Any, T], /) -> T: ...  # noqa: D102
