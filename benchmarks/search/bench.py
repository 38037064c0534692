"""What every part of the search's benchmark needs: the loaded index, its library and the sizes."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.row import Row
from benchmarks.search.figures import Peer, latency_rows
from benchmarks.search.measure import Timings, throughput, time_each
from benchmarks.search.sounds import Library
from samplemind.connections.postgres import ConnectionPool
from samplemind.settings import SearchSettings

Ask = Callable[[AsyncSession, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Bench:
    """A loaded index to ask.

    Attributes:
        home: of its stack.
        pool: connections to it.
        library: what it holds.
        settings: that queries are planned by.
        questions: of each class, for one client.
        seconds: that four clients ask.
    """

    home: Path
    pool: ConnectionPool
    library: Library
    settings: SearchSettings
    questions: int
    seconds: float

    @property
    def size(self) -> str:
        """The library's size, as it stands in the names of rows."""
        files = self.library.files
        return f"{files // 1_000_000}M" if files % 1_000_000 == 0 else f"{files // 1000}k"

    def asking(self, ask: Ask) -> Callable[[Any], Awaitable[Any]]:
        """Return the call as a service makes it: a session of the pool for each query."""

        async def in_session(question: Any) -> Any:
            async with self.pool.session() as session:
                return await ask(session, question)

        return in_session

    async def latency(
        self,
        name: str,
        ask: Ask,
        questions: Sequence[Any],
        *,
        goal_ms: float | None = None,
        peer: Peer | None = None,
    ) -> list[Row]:
        """Return the rows of one query class, named with the library's size."""
        asking = self.asking(ask)
        timings: Timings = await time_each(asking, questions)
        answered = await throughput(asking, questions, seconds=self.seconds)
        return latency_rows(f"{name}, {self.size}", timings, answered, goal_ms=goal_ms, peer=peer)
