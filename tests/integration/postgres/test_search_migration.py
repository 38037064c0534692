"""What the index held before is found after the migration, and again after the way back."""

import asyncio

import numpy as np
from alembic import command
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from samplemind.connections.postgres_engine import create_unpooled_engine
from samplemind.ids import new_id
from samplemind.migrate import alembic_config
from samplemind.settings import Settings

_INSERT = text("""
INSERT INTO search_documents (file_id, revision, path, title, tags, words, embedding,
                              embedding_version)
VALUES (:id, 3, '/a/kick.wav', 'kick', '{drum}', to_tsvector('samplemind', 'kicks'),
        CAST(:embedding AS halfvec), :version)
""")
_OLD = text("""
SELECT file_id, words::text, embedding::text FROM search_documents ORDER BY embedding IS NULL
""")
_NEW = text("""
SELECT d.file_id, t.words::text, v.embedding::text, d.index_version, d.created_at < '1980-01-01'
FROM search_documents AS d JOIN search_texts AS t USING (file_id)
LEFT JOIN search_vectors AS v USING (file_id) ORDER BY v.embedding IS NULL
""")


def _engine(settings: Settings) -> AsyncEngine:
    assert settings.postgres.url is not None
    return create_unpooled_engine(settings.postgres.url)


async def test_the_index_is_carried_over_and_back(empty_database: Settings) -> None:
    config = alembic_config(empty_database)
    await asyncio.to_thread(command.upgrade, config, "002")
    vector = "[" + ",".join(map(str, np.linspace(-1, 1, 128).round(2))) + "]"
    engine = _engine(empty_database)
    async with engine.begin() as connection:
        for embedding, version in ((vector, "v1"), (None, None)):
            values = {"id": new_id(), "embedding": embedding, "version": version}
            await connection.execute(_INSERT, values)
        before = (await connection.execute(_OLD)).all()

    await asyncio.to_thread(command.upgrade, config, "003")
    async with engine.connect() as connection:
        carried = (await connection.execute(_NEW)).all()
    # Version 0 and a time before all others: any writer may replace these rows.
    assert [tuple(row) for row in carried] == [(*row, 0, True) for row in before]

    await asyncio.to_thread(command.downgrade, config, "002")
    async with engine.connect() as connection:
        assert (await connection.execute(_OLD)).all() == before
    await engine.dispose()
