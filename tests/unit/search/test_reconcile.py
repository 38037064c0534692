from collections.abc import AsyncIterator, Iterable
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from samplemind.search.reconcile import Drift, differing

sides = st.dictionaries(st.uuids(), st.integers(0, 3), max_size=12)


async def stream(side: Iterable[tuple[UUID, int]]) -> AsyncIterator[tuple[UUID, int]]:
    for entry in side:
        yield entry


@given(library=sides, index=sides)
async def test_exactly_the_files_that_differ_are_found(
    library: dict[UUID, int], index: dict[UUID, int]
) -> None:
    drift = Drift()
    found = [
        file_id
        async for file_id in differing(
            stream(sorted(library.items())), stream(sorted(index.items())), drift
        )
    ]

    missing = library.keys() - index.keys()
    surplus = index.keys() - library.keys()
    stale = {key for key in library.keys() & index.keys() if index[key] < library[key]}
    assert found == sorted(missing | surplus | stale)
    assert (drift.missing, drift.surplus, drift.stale) == (len(missing), len(surplus), len(stale))
    assert drift.compared == len(library.keys() | index.keys())
