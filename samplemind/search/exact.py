"""The true nearest of many vectors at once, by comparing them with every vector of the library.

One query at a time reads the whole library for each. Here it is read once, a stretch of pages
after the other, and compared with all of them by one product of matrices.

Invariant: it walks no index, so that what an index finds can be held against it. Memory is bounded
by the stretch, whatever the library's size; every step can be cancelled.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.models.search_vector import EMBEDDING_DIMENSIONS
from samplemind.search.sound import Vector

_PAGES = 600  # some 16,000 vectors: with 400 wanted ones, 26 MB of similarities
_TABLES = ("search_vectors", "search_vectors_fresh")
_LENGTH = text("""
SELECT pg_relation_size(CAST(CAST(:table AS text) AS regclass))
       / current_setting('block_size')::integer
""")
_STRETCH = {
    table: text(f"""
    SELECT string_agg(uuid_send(file_id) || halfvec_send(embedding), CAST('' AS bytea))
    FROM {table} WHERE ctid >= CAST(:first AS tid) AND ctid < CAST(:after AS tid)
      AND embedding_version = :version
    """)  # noqa: S608 - of the names above
    for table in _TABLES
}
# As `uuid_send` and `halfvec_send` write them: an id; dimensions, nothing, and the numbers.
_ROW = np.dtype([("id", "V16"), ("head", ">i2", (2,)), ("vector", ">f2", (EMBEDDING_DIMENSIONS,))])
_SHORTEST = np.float32(1e-6)


async def true_nearest(
    session: AsyncSession,
    wanted: Sequence[Vector],
    version: str,
    *,
    take: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[list[UUID]]:
    """Return for each vector the ids of the nearest by cosine, nearest first.

    Args:
        session: the transaction to read in.
        wanted: float32, shape (128,), unit length.
        version: the only embedding version that is compared.
        take: how many for each.
        progress: called after each stretch with the pages that are done, and all.
    """
    best = _Best(np.stack(wanted), take)
    lengths = {table: int(await session.scalar(_LENGTH, {"table": table})) for table in _TABLES}
    total, done = sum(lengths.values()), 0
    for table, length in lengths.items():
        async for rows in _stretches(session, table, version, length):
            # In a thread: whatever else the process does must not wait for the products.
            await asyncio.to_thread(best.add, rows)
            done += _PAGES
            progress(min(done, total), total)
    return best.ids()


async def _stretches(
    session: AsyncSession, table: str, version: str, length: int
) -> AsyncIterator[NDArray[np.void]]:
    for first in range(0, length, _PAGES):
        parameters = {
            "first": f"({first},0)",
            "after": f"({first + _PAGES},0)",
            "version": version,
        }
        yield np.frombuffer(await session.scalar(_STRETCH[table], parameters) or b"", _ROW)


class _Best:
    """The nearest so far of each wanted vector."""

    def __init__(self, wanted: Vector, take: int) -> None:
        self._wanted = wanted
        self._take = take
        self._found: list[list[tuple[float, bytes]]] = [[] for _ in wanted]
        self._least = np.full(len(wanted), -np.inf, np.float32)

    def add(self, rows: NDArray[np.void]) -> None:
        if not len(rows):
            return
        vectors = rows["vector"].astype(np.float32)
        lengths = np.linalg.norm(vectors, axis=1)
        similarities = self._wanted @ (vectors / np.maximum(lengths, _SHORTEST)[:, None]).T
        better = similarities > self._least[:, None]
        for place in np.flatnonzero(better.any(axis=1)):
            self._add_to(int(place), similarities[place], np.flatnonzero(better[place]), rows)

    def _add_to(
        self, place: int, row: Vector, better: NDArray[np.intp], rows: NDArray[np.void]
    ) -> None:
        if len(better) > self._take:
            better = better[np.argpartition(-row[better], self._take - 1)[: self._take]]
        found = self._found[place] + [(float(row[i]), rows["id"][i].tobytes()) for i in better]
        found.sort(reverse=True)
        self._found[place] = found[: self._take]
        if len(self._found[place]) == self._take:
            self._least[place] = self._found[place][-1][0]

    def ids(self) -> list[list[UUID]]:
        return [[UUID(bytes=file_id) for _, file_id in found] for found in self._found]
