"""Content that was analysed before is hashed and not decoded again, as whatever file it comes."""

import asyncio
import dataclasses
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from samplemind.audio.analysis import ANALYZER_VERSION, analyze_file
from samplemind.audio.examination import examine
from samplemind.batches import Work, find_kind
from samplemind.cache.computed import bypass
from samplemind.cache.features import AudioFeatureCache
from samplemind.documents import AnalysisResult, AudioFile
from samplemind.ids import new_id
from samplemind.repositories.batch_items import Chunk
from tests.audio_files import wav

NEWER = "2.0.0"
# Of a result, what follows from the content alone.
FOUND = ("measurements", "blocks", "embedding", "embedding_version")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count what is really decoded: one entry for each, its size."""
    sizes: list[int] = []

    def counted(file: Any, limits: Any) -> Any:
        sizes.append(file.size_bytes)
        return examine(file, limits)

    monkeypatch.setattr("samplemind.audio.analysis.examine", counted)
    return sizes


async def _ingest(bench: Any, *paths: Path, owner_id: UUID | None = None) -> UUID:
    bench.owner_id = owner_id
    batch = await bench.plan(paths)
    await _work(bench, batch.batch_id, len(paths))
    batch_id: UUID = batch.batch_id
    return batch_id


async def _work(bench: Any, batch_id: UUID, files: int) -> None:
    chunk = Chunk(batch_id, 0, files - 1)
    given = Work(bench.connections, chunk, "job", run=bench.run, queue_drain=lambda: None)
    await asyncio.to_thread(find_kind("analyze").work, given)


async def _result_of(path: Path) -> tuple[AudioFile, AnalysisResult]:
    file = await AudioFile.find_one(AudioFile.path == str(path))
    assert file is not None
    result = await AnalysisResult.get(file.analysis_id)
    assert result is not None
    return file, result


async def test_a_copy_is_described_as_if_it_had_been_decoded(
    bench: Any, decoded: list[int]
) -> None:
    first = bench.folder / "Kick loop 120bpm Am.wav"
    copy = bench.folder / "Snare one shot 90bpm F#.wav"
    for path in (first, copy):
        path.write_bytes(wav())
    await _ingest(bench, first)
    assert len(decoded) == 1

    batch_id = await _ingest(bench, copy, owner_id=new_id())

    assert len(decoded) == 1
    assert await bench.states(batch_id) == ["done"]
    (original, there), (file, here) = await _result_of(first), await _result_of(copy)
    fresh = analyze_file(copy)
    assert file.content_hash == original.content_hash == fresh.content_hash
    assert (file.title, file.owner_id) == (fresh.name.title, bench.owner_id)
    assert file.name_evidence["tempo_bpm"] == 90
    assert here.id != there.id
    with bypass():
        await _ingest(bench, copy, owner_id=new_id())
    [again] = [result for result in await bench.results() if result.id not in (here.id, there.id)]
    for name in FOUND:
        assert getattr(here, name) == getattr(again, name), name


async def test_copies_in_one_batch_and_a_batch_submitted_again_decode_once(
    bench: Any, decoded: list[int]
) -> None:
    paths = [bench.folder / f"copy {number}.wav" for number in range(4)]
    for path in paths:
        path.write_bytes(wav())
    await _ingest(bench, *paths)
    await AudioFile.find().delete()  # so that their documents know nothing of them
    await _ingest(bench, *paths)
    assert len(decoded) == 1
    assert len(await bench.files()) == 4


async def test_a_chunk_whose_worker_died_before_it_stored_decodes_nothing_again(
    bench: Any, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench.folder / "sound.wav"
    path.write_bytes(wav())

    class WorkerDied(BaseException):
        """Stands for SIGKILL: nothing of the worker's own runs after it."""

    async def die(*_: Any) -> None:
        raise WorkerDied

    batch = await bench.plan([path])
    with monkeypatch.context() as patch:
        patch.setattr("samplemind.batches.chunks.record", die)
        with pytest.raises(WorkerDied):
            await _work(bench, batch.batch_id, 1)
    await bench.expire(batch.batch_id)
    await _work(bench, batch.batch_id, 1)

    assert await bench.states(batch.batch_id) == ["done"]
    assert len(decoded) == 1


async def test_another_version_decodes_and_what_its_predecessor_left_goes(
    bench: Any, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench.folder / "sound.wav"
    path.write_bytes(wav())
    await _ingest(bench, path)
    content_hash = (await bench.files())[0].content_hash
    features = AudioFeatureCache(bench.connections.cached)
    limits = bench.connections.settings.audio.limits()
    assert await features.get(content_hash, ANALYZER_VERSION, limits) is not None
    narrower = dataclasses.replace(limits, window_s=1.0)
    assert await features.get(content_hash, ANALYZER_VERSION, narrower) is None

    monkeypatch.setattr("samplemind.audio.analysis.ANALYZER_VERSION", NEWER)
    await _ingest(bench, path)

    assert len(decoded) == 2
    assert await features.get(content_hash, ANALYZER_VERSION, limits) is None
    assert await features.get(content_hash, NEWER, limits) is not None


@pytest.mark.parametrize("kept", [{"outcome": "analyzed"}, ["rubbish"], 7])
async def test_what_is_no_examination_is_decoded_anew(
    bench: Any, decoded: list[int], kept: Any
) -> None:
    path = bench.folder / "sound.wav"
    path.write_bytes(wav())
    await _ingest(bench, path)
    cache = bench.connections.cached.cache
    [stored] = [each async for each in cache.redis.scan_iter(cache.keys.value("features:*"))]
    await cache.set(stored.decode().removeprefix(cache.keys.value("")), kept)
    await AudioFile.find().delete()

    batch_id = await _ingest(bench, path)

    assert len(decoded) == 2
    assert await bench.states(batch_id) == ["done"]
