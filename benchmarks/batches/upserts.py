"""From dirty to searchable: one coalesced drain beside queues whose every task is one upsert.

The peers run the same indexer over the same documents, one document a task, in two processes each;
so what is compared is the coalescing and the queue, not the SQL.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text

from benchmarks.batches.platform import Worker, stores
from benchmarks.row import Row, row
from samplemind.connections.resources import Connections
from samplemind.documents.audio_file import AudioFile, FileStatus, audio_file_id
from samplemind.ids import new_id
from samplemind.jobs.payloads import IndexDirty
from samplemind.jobs.publishing import producer, publish
from samplemind.models.search_document import SearchDocument
from samplemind.repositories.audio_files import AudioFileRepository
from samplemind.search.dirty import mark_dirty
from samplemind.settings import Settings

GOAL = 3.0
_TIMEOUT_S = 600
_EMPTY = "TRUNCATE search_documents, search_texts, search_vectors, search_vectors_fresh CASCADE"

Send = Callable[[Sequence[str]], None]


def rows(*, quick: bool) -> list[Row]:
    """Return the documents a second of the platform beside the fastest peer.

    An area of its own, `make bench ARGS=batches.upserts`, because the peers take minutes.
    """
    documents = 2_000 if quick else 10_000
    with stores() as (home, settings):
        ids = asyncio.run(_write_library(settings, documents))
        # The peers get a part of it: a rate is a rate, and theirs takes its time.
        some = ids[: max(500, documents // 10)]
        peers = {
            name: asyncio.run(_time(settings, some, start(home, settings)))
            for name, start in (("Huey", _huey), ("Dramatiq", _dramatiq), ("Celery", _celery))
        }
        ours = asyncio.run(_time(settings, ids, _platform(home, settings)))
    fastest = max(peers, key=lambda name: peers[name])
    ratio = ours / peers[fastest]
    return [
        *(row(f"one upsert a task, {name}", rate, "documents/s") for name, rate in peers.items()),
        row(
            f"dirty to searchable, {documents:,} documents",
            ours,
            "documents/s",
            peer=(fastest, peers[fastest]),
            ratio=ratio,
            goal=f"≥ {GOAL:g} ×",
            met=ratio >= GOAL,
        ),
    ]


async def _write_library(settings: Settings, documents: int) -> list[UUID]:
    from datetime import UTC, datetime

    now, batch_id = datetime.now(UTC), new_id()
    files = []
    for number in range(documents):
        path = Path(f"/bench/pack {number // 50}/Dark Kick {number} 128 bpm.wav")
        files.append(
            AudioFile.model_construct(
                id=audio_file_id(None, path),
                path=str(path),
                content_hash=f"{number:064x}",
                size_bytes=100_000,
                observed_at=now,
                title=path.stem,
                pack=path.parent.name,
                status=FileStatus.SILENT,
                outcome="silent",
                tags=["kick", "dark"],
                duration_s=1.0,
                batch_id=batch_id,
                created_at=now,
                updated_at=now,
            )
        )
    async with Connections(settings) as connections:
        await connections.documents()
        for start in range(0, documents, 1000):
            await AudioFileRepository().write_found(files[start : start + 1000], now)
    return [file.id for file in files]


async def _time(settings: Settings, ids: Sequence[UUID], started: Any) -> float:
    """Return the documents a second from the first message until all can be found."""
    with started as send:
        async with Connections(settings) as connections:
            async with connections.postgres.session() as session:
                await session.execute(text(_EMPTY))
            await _until(connections, send, ids[:4])  # processes, pools and plans are warm then
            began = time.perf_counter()
            await _until(connections, send, ids)
            return len(ids) / (time.perf_counter() - began)


async def _until(connections: Connections, send: Send, ids: Sequence[UUID]) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    await asyncio.to_thread(send, [str(file_id) for file_id in ids])
    query = select(func.count()).select_from(SearchDocument)
    while True:
        async with connections.postgres.session() as session:
            if (await session.scalar(query) or 0) >= len(ids):
                return
        assert time.monotonic() < deadline, "the documents were not indexed in time"
        await asyncio.sleep(0.02)


@contextmanager
def _platform(home: Path, settings: Settings) -> Iterator[Send]:
    worker = Worker(home, "indexer")
    try:
        with producer(settings) as app:

            def send(ids: Sequence[str]) -> None:
                async def mark() -> bool:
                    async with Connections(settings) as connections:
                        return await mark_dirty(connections.broker, [UUID(text) for text in ids])

                if asyncio.run(mark()):
                    publish(app, [IndexDirty()])

            yield send
    finally:
        worker.kill()


@contextmanager
def _celery(home: Path, settings: Settings) -> Iterator[Send]:
    command = ["celery", "-A", "benchmarks.batches.peers.with_celery", "worker", "-c", "2"]
    with _running(home, settings, [*command, "--without-gossip", "--without-mingle"]):
        from benchmarks.batches.peers.with_celery import app, upsert

        def send(ids: Sequence[str]) -> None:
            with app.producer_or_acquire() as sender, sender.batch():
                for file_id in ids:
                    upsert.apply_async((file_id,), producer=sender)

        yield send


@contextmanager
def _huey(home: Path, settings: Settings) -> Iterator[Send]:
    command = ["huey.bin.huey_consumer", "benchmarks.batches.peers.with_huey.huey"]
    with _running(home, settings, [*command, "-k", "process", "-w", "2", "-d", "0.01"]):
        from benchmarks.batches.peers.with_huey import upsert

        yield lambda ids: [upsert(file_id) for file_id in ids] and None


@contextmanager
def _dramatiq(home: Path, settings: Settings) -> Iterator[Send]:
    command = ["dramatiq", "benchmarks.batches.peers.with_dramatiq", "-p", "2", "-t", "1"]
    with _running(home, settings, command):
        from benchmarks.batches.peers.with_dramatiq import upsert

        yield lambda ids: [upsert.send(file_id) for file_id in ids] and None


@contextmanager
def _running(home: Path, settings: Settings, module: list[str]) -> Iterator[None]:
    assert settings.broker.url is not None
    os.environ["BENCH_REDIS_URL"] = settings.broker.url.get_secret_value()
    os.environ["SAMPLEMIND_HOME"] = str(home)
    log = home / "logs" / f"{module[0]}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        del os.environ["SAMPLEMIND_HOME"]
