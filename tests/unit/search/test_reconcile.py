from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from samplemind.repositories.audio_files import FileVersion
from samplemind.search.reconcile import Drift, RowVersion, differing

versions = st.builds(
    lambda day, revision, index: RowVersion(
        FileVersion(datetime(2026, 1, day, tzinfo=UTC), revision), index
    ),
    st.integers(1, 2),
    st.integers(1, 2),
    st.integers(1, 2),
)
sides = st.dictionaries(st.uuids(), versions, max_size=12)


async def stream(
    side: Iterable[tuple[UUID, RowVersion]],
) -> AsyncIterator[tuple[UUID, RowVersion]]:
    for entry in side:
        yield entry


@given(data=st.data())
async def test_exactly_the_files_that_differ_are_found(data: st.DataObject) -> None:
    library, index = data.draw(sides), data.draw(sides)
    # Files of both sides are what it is about, and ids are drawn apart.
    for file_id in library:
        if data.draw(st.booleans()):
            index[file_id] = data.draw(versions)
    drift = Drift()
    found = [
        entry
        async for entry in differing(
            stream(sorted(library.items())), stream(sorted(index.items())), drift
        )
    ]

    both = library.keys() & index.keys()
    missing = library.keys() - index.keys()
    surplus = index.keys() - library.keys()
    ahead = {key for key in both if index[key].file > library[key].file}
    stale = {key for key in both - ahead if index[key] < library[key]}
    wrong = missing | surplus | stale | ahead
    assert found == [(key, index[key] if key in ahead else None) for key in sorted(wrong)]
    assert (drift.missing, drift.surplus) == (len(missing), len(surplus))
    assert (drift.stale, drift.ahead) == (len(stale), len(ahead))
    assert drift.total == len(wrong)
    assert drift.compared == len(library.keys() | index.keys())
