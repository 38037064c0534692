"""Counters, vocabulary, upkeep and figures of the index."""

import math
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text

from samplemind.connections.resources import Connections
from samplemind.errors import InvalidInputError
from samplemind.maintenance.locks import BACKUP_LOCK
from samplemind.models.search_document import SearchDocument
from samplemind.models.search_usage import SearchUsage
from samplemind.models.search_vocabulary import SearchLexeme, SearchPrefix, SearchWord
from samplemind.search.fold import fold_vectors
from samplemind.search.indexer import delete_files, index_files, reindex_owner
from samplemind.search.optimizer import SEARCH_TABLES, SearchOptimizer
from samplemind.search.statistics import Vocabulary, refresh_vocabulary
from samplemind.search.usage import Uses, count_uses, forget_unused
from tests.library import add_file, unit_vector


async def counters(connections: Connections) -> dict[UUID, tuple[int, int]]:
    async with connections.postgres.session() as session:
        rows = await session.scalars(select(SearchUsage))
        return {row.file_id: (row.plays, row.downloads) for row in rows}


async def quality(connections: Connections, file_id: UUID) -> float:
    async with connections.postgres.session() as session:
        row = await session.get_one(SearchDocument, file_id)
        of_text = await session.scalar(
            text("SELECT quality FROM search_texts WHERE file_id = :id"), {"id": file_id}
        )
    assert row.quality == of_text
    return row.quality


async def test_uses_add_up_and_lift_the_quality_at_the_next_indexing(
    connections: Connections,
) -> None:
    await connections.documents()
    file = await add_file("/u/kick.wav")
    await index_files(connections, [file.id])
    before = await quality(connections, file.id)
    for _ in range(2):
        async with connections.postgres.session() as session:
            await count_uses(session, {file.id: Uses(plays=50, downloads=5)})
    assert await counters(connections) == {file.id: (100, 10)}

    await file.set({"revision": 2, "tags": ["drum"]})
    await index_files(connections, [file.id])

    popularity = math.log1p(140) / (math.log1p(140) + math.log1p(100))
    assert await quality(connections, file.id) == pytest.approx(
        before + 0.4 * popularity + 0.3 / 8, abs=1e-3
    )


async def test_counting_writes_no_indexed_row(connections: Connections) -> None:
    await connections.documents()
    file = await add_file("/u/kick.wav")
    await index_files(connections, [file.id])
    place = text("SELECT ctid::text FROM search_documents")
    async with connections.postgres.session() as session:
        before = await session.scalar(place)
        await count_uses(session, {file.id: Uses(plays=1)})
        assert await session.scalar(place) == before


async def test_a_negative_count_is_refused(connections: Connections) -> None:
    async with connections.postgres.session() as session:
        with pytest.raises(InvalidInputError, match="negative"):
            await count_uses(session, {uuid4(): Uses(plays=-1)})


async def test_counters_of_files_that_left_are_forgotten_in_time(connections: Connections) -> None:
    await connections.documents()
    kept, gone = await add_file("/u/kept.wav"), uuid4()
    await index_files(connections, [kept.id])
    async with connections.postgres.session() as session:
        await count_uses(session, {kept.id: Uses(plays=1), gone: Uses(plays=1)})
    async with connections.postgres.session() as session:
        assert await forget_unused(session, older_than=timedelta(days=1)) == 0
        assert await forget_unused(session, older_than=timedelta(0)) == 1
    assert (await counters(connections)).keys() == {kept.id}


async def refreshed(connections: Connections) -> Vocabulary:
    async with connections.postgres.session() as session:
        return await refresh_vocabulary(session)


async def test_the_vocabulary_counts_files_by_word_stem_and_prefix(
    connections: Connections,
) -> None:
    await connections.documents()
    files = [
        await add_file("/v/1.wav", title="Drums drums Café"),
        await add_file("/v/2.wav", title="Drum_128bpm"),
        await add_file("/v/3.wav", title="Drone", artist="Ann"),
    ]
    await index_files(connections, [file.id for file in files])

    await refreshed(connections)

    async with connections.postgres.session() as session:
        words = {row.word: row.documents for row in await session.scalars(select(SearchWord))}
        lexemes = {row.lexeme: row.documents for row in await session.scalars(select(SearchLexeme))}
        prefixes = {row.prefix: row.words for row in await session.scalars(select(SearchPrefix))}
    assert words == {"drums": 1, "drum": 1, "drone": 1, "cafe": 1, "bpm": 1, "ann": 1}
    assert lexemes["drum"] == 2
    assert lexemes["wav"] == 3
    assert prefixes["dr"] == ["drone", "drum", "drums"]
    assert prefixes["drum"] == ["drum", "drums"]
    assert set(prefixes) >= {"d", "dro", "drone", "c", "cafe"}
    assert max(map(len, prefixes)) == 5


async def test_words_of_files_that_left_leave_the_vocabulary(connections: Connections) -> None:
    await connections.documents()
    kept, gone = await add_file("/v/kept.wav"), await add_file("/v/gone.wav", title="theremin")
    await index_files(connections, [kept.id, gone.id])
    await refreshed(connections)
    await gone.delete()

    assert (await delete_files(connections, [kept.id, gone.id])).removed == 1
    after = await refreshed(connections)

    async with connections.postgres.session() as session:
        assert await session.get(SearchWord, "theremin") is None
        assert await session.get(SearchLexeme, "theremin") is None
        assert await session.get(SearchPrefix, "there") is None
        assert await session.get(SearchWord, "kept") is not None
    assert await refreshed(connections) == after


async def test_an_owners_files_are_made_anew_and_nobody_elses(connections: Connections) -> None:
    await connections.documents()
    owner, other = uuid4(), uuid4()
    mine = [await add_file(f"/o/{n}.wav", owner_id=owner) for n in range(3)]
    theirs = await add_file("/o/theirs.wav", owner_id=other)
    gone = await add_file("/o/gone.wav", owner_id=owner)
    await index_files(connections, [file.id for file in (*mine, theirs, gone)])
    await gone.delete()
    async with connections.postgres.session() as session:
        await session.execute(text("UPDATE search_documents SET fingerprint = '', title = 'old'"))
    steps: list[tuple[int, int]] = []

    report = await reindex_owner(
        connections, owner, progress=lambda done, total: steps.append((done, total))
    )

    assert (report.seen, report.written, report.removed) == (4, 3, 1)
    assert steps == [(4, 4)]
    async with connections.postgres.session() as session:
        titles = {row.file_id: row.title for row in await session.scalars(select(SearchDocument))}
    assert titles == {**{file.id: file.title for file in mine}, theirs.id: "old"}
    assert (await reindex_owner(connections, owner)).written == 0


async def test_upkeep_frees_dead_rows_and_sorts_pending_entries_in(
    connections: Connections,
) -> None:
    await connections.documents()
    files = [await add_file(f"/s/{n}.wav", vector=unit_vector(n)) for n in range(20)]
    await index_files(connections, [file.id for file in files])
    await fold_vectors(connections)
    optimizer = SearchOptimizer(connections)
    pending = {each.index: each.entries for each in (await optimizer.get_search_stats()).pending}
    assert pending["ix_search_texts_words"] > 0

    told: list[tuple[int, int]] = []
    counted = await optimizer.update_statistics(lambda done, total: told.append((done, total)))
    assert counted.lexemes > 0
    assert [done for done, _ in told] == list(range(1, told[-1][1] + 1))
    report = await optimizer.vacuum_tables()
    assert tuple(each.name for each in report.done) == SEARCH_TABLES
    assert report.skipped == []

    stats = await optimizer.get_search_stats()
    assert {each.entries for each in stats.pending} == {0}
    tables = {table.name: table for table in stats.tables}
    assert tables.keys() == set(SEARCH_TABLES)
    assert tables["search_vectors"].rows == 20
    assert tables["search_vectors_fresh"].dead_rows == 0
    assert all(table.index_bytes > 0 and table.vacuumed_at for table in stats.tables)
    assert (stats.freshness.files, stats.freshness.fresh_vectors) == (20, 0)
    assert stats.freshness.embedding_versions == 1
    assert stats.freshness.rebuild_phase is None
    assert stats.lag.waiting == 0


async def test_upkeep_of_the_index_keeps_out_of_the_way_of_a_backup(
    connections: Connections,
) -> None:
    take = text("SELECT pg_advisory_lock(hashtext(:name), 0)")
    async with connections.postgres.session() as session:
        await session.execute(take, {"name": BACKUP_LOCK})
        report = await SearchOptimizer(connections).vacuum_tables()
        await session.execute(text("SELECT pg_advisory_unlock_all()"))
    assert report.done == []
    assert report.skipped == [(table, "a backup is running") for table in SEARCH_TABLES]


async def test_the_slowest_searches_are_told(connections: Connections) -> None:
    async with connections.postgres.session() as session:
        # Slower than whatever other tests of this server have asked.
        await session.execute(
            text("SELECT pg_sleep(1.5) FROM (SELECT count(*) FROM search_documents) AS counted")
        )
    slowest = (await SearchOptimizer(connections).get_search_stats()).slowest
    assert any("search_documents) AS counted" in each.query for each in slowest)
    assert all(each.max_ms >= each.mean_ms >= 0 and each.calls for each in slowest)
