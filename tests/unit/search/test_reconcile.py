from collections.abc import AsyncIterator, Iterable
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from samplemind.search.reconcile import NO_ROW, Difference, Drift, differing

sides = st.dictionaries(st.uuids(), st.integers(0, 3), max_size=12)


async def stream(side: Iterable[tuple[UUID, int]]) -> AsyncIterator[tuple[UUID, int]]:
    for entry in side:
        yield entry


@given(library=sides, index=sides)
async def test_exactly_the_files_that_differ_are_found(
    library: dict[UUID, int], index: dict[UUID, int]
) -> None:
    drift = Drift()
    sides = stream(sorted(library.items())), stream(sorted(index.items()))
    found = [entry async for entry in differing(*sides, drift)]

    missing = library.keys() - index.keys()
    surplus = index.keys() - library.keys()
    stale = {key for key in library.keys() & index.keys() if index[key] != library[key]}
    assert found == [
        Difference(key, index.get(key, NO_ROW), surplus=key in surplus)
        for key in sorted(missing | surplus | stale)
    ]
    assert (drift.missing, drift.surplus, drift.stale) == (len(missing), len(surplus), len(stale))
    assert drift.compared == len(library.keys() | index.keys())
