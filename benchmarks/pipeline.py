"""From enqueue to searchable: a thousand short files through the running platform."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import numpy as np
import soundfile
from sqlalchemy import select

from benchmarks.platform import samplemind, settings_of, temporary_home
from benchmarks.row import Row, row
from samplemind.connections.resources import Connections
from samplemind.demo.instruments import RATE_HZ
from samplemind.documents.batch_item import BatchItem
from samplemind.jobs.client import Jobs
from samplemind.models.search_document import SearchDocument
from samplemind.settings import Settings

FILES = 1000
_TIMEOUT_S = 300


def rows(*, quick: bool) -> list[Row]:
    """Return p50 and p95 of enqueue-to-searchable and of its parts, in seconds."""
    count = 100 if quick else FILES
    with temporary_home() as home:
        samplemind("up", "--detach", home=home)
        folder = home / "samples"
        write_one_shots(folder, count)
        return asyncio.run(_measure(settings_of(home), folder, count))


def write_one_shots(folder: Path, count: int, *, first: int = 0) -> None:
    """Write decaying noise bursts of 1.2 s, each of another colour; `first` chooses others."""
    folder.mkdir()
    time_s = np.arange(round(1.2 * RATE_HZ)) / RATE_HZ
    for number in range(first, first + count):
        random = np.random.default_rng(number)
        tone = np.sin(2 * np.pi * random.uniform(60, 2000) * time_s)
        sound = (tone + 0.2 * random.standard_normal(len(time_s))) * np.exp(-6 * time_s)
        soundfile.write(folder / f"hit_{number:04}.wav", 0.5 * sound, RATE_HZ, subtype="PCM_16")


async def _measure(settings: Settings, folder: Path, count: int) -> list[Row]:
    async with Jobs(settings) as jobs, Connections(settings) as connections:
        started = datetime.now(UTC)
        submission = await jobs.submit_batch([folder])
        submitted = datetime.now(UTC)
        indexed = await _wait_until_searchable(connections, count)
        await connections.documents()
        items = await BatchItem.find(BatchItem.batch_id == submission.batch_id).to_list()
    analysed = {item.audio_file_id: item.finished_at for item in items}
    to_analysed = [(end - started).total_seconds() for end in analysed.values() if end]
    to_searchable = [(end - started).total_seconds() for end in indexed.values()]
    behind = [
        (end - done).total_seconds()
        for file_id, end in indexed.items()
        if (done := analysed.get(file_id))
    ]
    publishing = (submitted - started).total_seconds()
    return [
        row(f"enqueue to searchable, {count} files, p50", _percentile(to_searchable, 50), "s"),
        row(f"enqueue to searchable, {count} files, p95", _percentile(to_searchable, 95), "s"),
        row("  of it: writing and publishing the batch", publishing, "s"),
        row("  of it: until analysed and recorded, p50", _percentile(to_analysed, 50), "s"),
        row("  of it: recorded to searchable, p50", _percentile(behind, 50), "s"),
        row("  of it: recorded to searchable, p95", _percentile(behind, 95), "s"),
        row("files searchable a second, all in all", count / max(to_searchable), "1/s"),
    ]


async def _wait_until_searchable(connections: Connections, count: int) -> dict[UUID, datetime]:
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        async with connections.postgres.session() as session:
            query = select(SearchDocument.file_id, SearchDocument.indexed_at)
            indexed = {row.file_id: row.indexed_at for row in await session.execute(query)}
        if len(indexed) >= count:
            return indexed
        if time.monotonic() > deadline:
            message = f"{len(indexed)} of {count} files searchable after {_TIMEOUT_S} s"
            raise TimeoutError(message)
        await asyncio.sleep(0.25)


def _percentile(values: list[float], percent: int) -> float:
    return float(np.percentile(values, percent))
