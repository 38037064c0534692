import pytest
from sqlalchemy import select, text

from samplemind.connections.resources import Connections
from samplemind.documents.audio_file import FileStatus
from samplemind.models.search_document import SearchDocument
from samplemind.search.dirty import index_lag, mark_dirty
from samplemind.search.indexer import IndexReport, drain, index_files
from samplemind.search.reconcile import reconcile
from tests.library import add_file, unit_vector


async def indexed(connections: Connections) -> dict[str, SearchDocument]:
    async with connections.postgres.session() as session:
        rows = await session.scalars(select(SearchDocument))
        return {row.path: row for row in rows}


async def test_a_drain_writes_what_is_dirty_and_leaves_nothing_behind(
    connections: Connections,
) -> None:
    await connections.documents()
    files = [await add_file(f"/pack/kick_{n}.wav", vector=unit_vector(n)) for n in range(3)]
    await mark_dirty(connections.broker, [file.id for file in files])

    assert await drain(connections) == IndexReport(seen=3, written=3)

    rows = await indexed(connections)
    assert rows.keys() == {file.path for file in files}
    assert all(row.embedding_version is not None for row in rows.values())
    lag = await index_lag(connections.broker)
    assert (lag.waiting, lag.claimed) == (0, 0)


async def test_indexing_an_unchanged_file_writes_nothing(connections: Connections) -> None:
    await connections.documents()
    file = await add_file("/pack/kick.wav", vector=unit_vector(1))
    await index_files(connections, [file.id])
    before = (await indexed(connections))[file.path].indexed_at

    assert (await index_files(connections, [file.id])).written == 0
    assert (await indexed(connections))[file.path].indexed_at == before


async def test_a_late_writer_never_overwrites_a_newer_revision(connections: Connections) -> None:
    await connections.documents()
    file = await add_file("/pack/kick.wav", revision=7, title="new")
    await index_files(connections, [file.id])
    await file.set({"revision": 6, "title": "old"})

    await index_files(connections, [file.id])

    assert (await indexed(connections))[file.path].title == "new"


async def test_files_that_are_gone_or_refused_leave_the_index(connections: Connections) -> None:
    await connections.documents()
    gone = await add_file("/pack/gone.wav")
    refused = await add_file("/pack/refused.wav")
    kept = await add_file("/pack/kept.wav")
    ids = [gone.id, refused.id, kept.id]
    await index_files(connections, ids)
    await gone.delete()
    await refused.set({"status": FileStatus.REJECTED, "revision": 2})

    report = await index_files(connections, ids)

    assert report.removed == 2
    assert (await indexed(connections)).keys() == {kept.path}


async def test_reconciling_repairs_what_is_missing_stale_and_surplus(
    connections: Connections,
) -> None:
    await connections.documents()
    missing = await add_file("/pack/missing.wav")
    stale = await add_file("/pack/stale.wav")
    surplus = await add_file("/pack/surplus.wav")
    refused = await add_file("/pack/refused.wav", status=FileStatus.REJECTED)
    await index_files(connections, [stale.id, surplus.id])
    await stale.set({"revision": 2, "title": "stale no more"})
    await surplus.delete()

    drift = await reconcile(connections)
    assert (drift.missing, drift.stale, drift.surplus) == (1, 1, 1)
    await drain(connections)

    rows = await indexed(connections)
    assert rows.keys() == {missing.path, stale.path}
    assert refused.path not in rows
    assert rows[stale.path].title == "stale no more"
    assert (await reconcile(connections)).total == 0


async def test_a_drain_that_dies_loses_nothing(connections: Connections) -> None:
    await connections.documents()
    file = await add_file("/pack/kick.wav")
    await mark_dirty(connections.broker, [file.id])
    async with connections.postgres.session() as session:
        await session.execute(text("ALTER TABLE search_documents RENAME TO elsewhere"))
    try:
        with pytest.raises(Exception, match="search_documents"):
            await drain(connections)
    finally:
        async with connections.postgres.session() as session:
            await session.execute(text("ALTER TABLE elsewhere RENAME TO search_documents"))

    lag = await index_lag(connections.broker)
    assert lag.waiting + lag.claimed == 1
