"""A workbench for batches: small files whose content says how their analysis ends."""

import asyncio
import dataclasses
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from samplemind.audio.analysis import FileAnalysis
from samplemind.audio.examination import SoundFacts
from samplemind.audio.filename import read_name
from samplemind.audio.hints import Kind
from samplemind.audio.measure import Measurements, Sound, measure
from samplemind.audio.outcome import Outcome
from samplemind.batches import Analyzer, BatchPlan, ChunkReport, analyze_chunk, plan, stalled
from samplemind.batches.planning import PATIENCE
from samplemind.connections.resources import Connections
from samplemind.documents import AnalysisResult, AudioFile, BatchItem, ItemState
from samplemind.documents.batch_item import WAITING
from samplemind.errors import AudioReadError
from samplemind.repositories.batch_items import BatchItemRepository, Chunk
from samplemind.search.dirty import DIRTY_KEY

VERSION = "1.0.0"


class SoftLimit(Exception):  # noqa: N818 - as Celery names its own
    """What a soft time limit raises in the main thread, anywhere."""


def describe(path: Path) -> FileAnalysis:
    """Return what a real analysis could have found; the file's first word is its outcome."""
    content = path.read_bytes()
    word = content.split()[0].decode()
    outcome = Outcome(word)
    name = read_name(path)
    facts = None if outcome.rejected else _FACTS
    measured = _measure() if outcome.measured else None
    digest = hashlib.sha256(content).hexdigest()
    return FileAnalysis(path, outcome, outcome.message, name, digest, len(content), facts, measured)


_FACTS = SoundFacts(
    format="WAV",
    codec="PCM_16",
    bit_depth=16,
    sample_rate_hz=44_100,
    channels=2,
    duration_s=1.2,
    peak_dbfs=-0.3,
    dc_offset=0.0,
    missing_share=0.0,
    nonfinite_samples=0,
    flags=(),
)


@cache
def _measure() -> Measurements:
    noise = np.random.default_rng(1).standard_normal((22_050, 1)).astype(np.float32) / 8
    return dataclasses.replace(
        measure(Sound(noise, 44_100, 0.5, whole=True)),
        kind=Kind.LOOP,
        tempo_bpm=128.0,
        key="F# minor",
    )


@dataclass
class Bench:
    """One library of files, one owner, and everything that was done to them."""

    connections: Connections
    folder: Path
    loop: asyncio.AbstractEventLoop
    looked_into: list[tuple[Path, bool]] = field(default_factory=list)
    drains: int = 0
    before_analysis: Callable[[Path], None] = lambda _: None
    owner_id: UUID | None = None
    version: str = VERSION
    interruption: type[Exception] = SoftLimit

    def write(self, *words: str) -> list[Path]:
        """Write one file for each outcome word."""
        paths = []
        for number, word in enumerate(words):
            path = self.folder / f"Drum Loop {number} 128 bpm.wav"
            path.write_text(f"{word} {number}")
            paths.append(path)
        return paths

    async def plan(self, paths: Sequence[Path], *, chunk_size: int = 8) -> BatchPlan:
        """Store a batch, all of it handed out."""
        batch = await self.plan_waiting(paths, chunk_size=chunk_size)
        whole = Chunk(batch.batch_id, 0, batch.total)
        await BatchItemRepository().hand_out(whole, 0, patience_s=PATIENCE.total_seconds())
        return batch

    async def plan_waiting(self, paths: Sequence[Path], *, chunk_size: int = 8) -> BatchPlan:
        """Store a batch, nothing of it handed out."""
        return await plan(self.connections, paths, owner_id=self.owner_id, chunk_size=chunk_size)

    async def rescue(self, now: datetime | None = None) -> list[tuple[UUID, int, int]]:
        """Return the chunks, (batch, first, last), that a rescue publishes again."""
        lost = [each.chunk for each in await stalled(self.connections, now)]
        return [(chunk.batch_id, chunk.first, chunk.last) for chunk in lost]

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def analyze_now(self, batch_id: UUID, first: int, last: int, job_id: str) -> ChunkReport:
        """Work through a chunk in the calling thread, as a worker does."""
        return analyze_chunk(
            self.connections,
            batch_id,
            first,
            last,
            job_id=job_id,
            run=self.run,
            analyzer=Analyzer(
                "samplemind",
                self.version,
                self._analyze,
                self._hash,
                interruptions=(self.interruption,),
            ),
            queue_drain=self._queue_drain,
        )

    async def analyze(
        self, batch_id: UUID, first: int, last: int, job_id: str = "job"
    ) -> ChunkReport:
        return await asyncio.to_thread(self.analyze_now, batch_id, first, last, job_id)

    async def items(self, batch_id: UUID) -> list[BatchItem]:
        return await BatchItem.find(BatchItem.batch_id == batch_id).sort("seq").to_list()

    async def states(self, batch_id: UUID) -> list[ItemState]:
        return [item.state for item in await self.items(batch_id)]

    async def files(self) -> list[AudioFile]:
        return await AudioFile.find().sort("path").to_list()

    async def results(self) -> list[AnalysisResult]:
        return await AnalysisResult.find().to_list()

    async def dirty(self) -> set[UUID]:
        return {
            UUID(member.decode())
            for member in await self.connections.broker.zrange(DIRTY_KEY, 0, -1)
        }

    async def expire(self, batch_id: UUID, *, after: timedelta = timedelta(hours=1)) -> None:
        """Let time pass for every open item of a batch."""
        items = BatchItem.get_pymongo_collection()
        await items.update_many(
            {"batch_id": batch_id, "due_at": {"$lt": WAITING}},
            [{"$set": {"due_at": {"$subtract": ["$due_at", round(after.total_seconds() * 1000)]}}}],
        )

    def _analyze(self, path: Path, alone: bool) -> FileAnalysis:
        self.looked_into.append((path, alone))
        self.before_analysis(path)
        if path.read_bytes().startswith(b"broken disk"):
            message = "the disk did not answer"
            raise AudioReadError(message)
        return describe(path)

    @staticmethod
    def _hash(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def _queue_drain(self) -> None:
        self.drains += 1


@pytest.fixture
async def bench(connections: Connections, tmp_path: Path) -> Bench:
    await connections.documents()
    return Bench(connections, tmp_path, asyncio.get_running_loop())
