import asyncio
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import select, text

from samplemind.connections.resources import Connections
from samplemind.documents.analysis_result import AnalysisResult
from samplemind.documents.audio_file import AudioFile, FileStatus
from samplemind.errors import ConflictError
from samplemind.models.search_document import SearchDocument
from samplemind.models.search_vector import SearchVector
from samplemind.search import indexer
from samplemind.search.dirty import index_lag, mark_dirty
from samplemind.search.fold import fold_vectors
from samplemind.search.indexer import IndexReport, drain, index_files, load_files
from samplemind.search.languages import TextConfiguration
from samplemind.search.merge import merge_files
from samplemind.search.reconcile import reconcile
from tests.library import add_file, delete_file, unit_vector


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


async def test_a_file_that_was_made_again_replaces_a_row_of_a_higher_revision(
    connections: Connections,
) -> None:
    await connections.documents()
    first = await add_file("/pack/kick.wav", revision=7, title="first")
    await index_files(connections, [first.id])
    await delete_file(first)
    again = await add_file("/pack/kick.wav", revision=1, title="again")
    assert again.id == first.id

    # The mark of neither change arrived.
    assert (await reconcile(connections)).stale == 1
    await drain(connections)

    row = (await indexed(connections))[again.path]
    assert (row.title, row.revision) == ("again", 1)


async def test_a_late_writer_never_revives_what_was_made_again(connections: Connections) -> None:
    await connections.documents()
    first = await add_file("/pack/kick.wav", revision=7, title="first")
    [late] = await load_files([first.id], {}, configuration=TextConfiguration.ENGLISH)
    await delete_file(first)
    again = await add_file("/pack/kick.wav", title="again")
    await index_files(connections, [again.id])

    async with connections.postgres.session() as session:
        assert await merge_files(session, [late]) == []

    assert (await indexed(connections))[again.path].title == "again"


async def test_a_file_that_vanishes_while_it_is_indexed_does_not_stay(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    await connections.documents()
    file = await add_file("/pack/kick.wav")

    async def merge_late(*arguments: Any) -> list[UUID]:
        written = await merge_files(*arguments)
        if await AudioFile.get(file.id) is not None:
            await file.delete()  # after its documents were read, before the row is committed
        return written

    monkeypatch.setattr(indexer, "merge_files", merge_late)
    report = await index_files(connections, [file.id])

    assert (report.written, report.removed) == (1, 1)
    assert await indexed(connections) == {}


async def test_a_row_that_is_ahead_of_a_restored_library_is_replaced(
    connections: Connections,
) -> None:
    await connections.documents()
    file = await add_file("/pack/kick.wav", revision=9, title="lost")
    await index_files(connections, [file.id])
    await file.set({"revision": 3, "title": "restored"})

    assert (await reconcile(connections)).ahead == 1
    await drain(connections)

    assert (await indexed(connections))[file.path].title == "restored"
    assert (await reconcile(connections)).total == 0


async def test_files_of_two_embedding_versions_keep_their_own(connections: Connections) -> None:
    await connections.documents()
    old = await add_file("/pack/old.wav", vector=unit_vector(1))
    new = await add_file("/pack/new.wav", vector=unit_vector(2))
    analysis = await AnalysisResult.get(new.analysis_id)
    assert analysis is not None
    await analysis.set({"embedding_version": "test-2"})
    await index_files(connections, [old.id, new.id])
    await fold_vectors(connections)

    rows = await indexed(connections)
    assert rows[old.path].embedding_version == "test-1"
    assert rows[new.path].embedding_version == "test-2"
    async with connections.postgres.session() as session:
        versions = {
            row.file_id: row.embedding_version
            for row in await session.scalars(select(SearchVector))
        }
    assert versions == {old.id: "test-1", new.id: "test-2"}


async def test_a_vector_that_cannot_be_compared_is_left_out_and_the_words_are_found(
    connections: Connections,
) -> None:
    await connections.documents()
    for name, vector in (
        ("zero", np.zeros(128, np.float32)),
        ("infinite", np.full(128, np.inf, np.float32)),
        ("short", np.ones(3, np.float32)),
    ):
        file = await add_file(f"/pack/{name}.wav", vector=vector)
        assert (await index_files(connections, [file.id])).written == 1
        assert (await indexed(connections))[file.path].embedding_version is None


async def test_drains_at_once_write_each_file_once(connections: Connections) -> None:
    await connections.documents()
    files = [await add_file(f"/many/{n}.wav", vector=unit_vector(n)) for n in range(30)]
    ids = [file.id for file in files]

    reports = await asyncio.gather(
        *(index_files(connections, order) for order in (ids, ids[::-1], ids[10:] + ids[:10]))
    )

    assert sum(report.written for report in reports) == 30
    assert len(await indexed(connections)) == 30


async def test_an_index_is_not_emptied_for_another_library(connections: Connections) -> None:
    await connections.documents()
    files = [await add_file(f"/pack/kick_{n}.wav") for n in range(120)]
    await index_files(connections, [file.id for file in files])
    for file in files[1:]:
        await file.delete()

    with pytest.raises(ConflictError, match="119 of 120 rows"):
        await reconcile(connections)
    await drain(connections)
    assert len(await indexed(connections)) == 120

    await reconcile(connections, force=True)
    await drain(connections)
    assert (await indexed(connections)).keys() == {files[0].path}
