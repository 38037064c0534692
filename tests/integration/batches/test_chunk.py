"""Working through a chunk: decisions, storing, interruption."""

import asyncio
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from samplemind.audio.embedding import BLOCK_SIZES
from samplemind.batches import cancel, claim, failed_items, finish, progress, release
from samplemind.documents import AnalysisResult, FileStatus
from samplemind.errors import PoolTimeoutError, StoreUnavailableError
from samplemind.repositories.batch_items import BatchItemRepository


async def test_each_outcome_ends_its_item_and_describes_its_file(bench: Any) -> None:
    paths = bench.write("analyzed", "truncated", "silent", "short", "rejected:unreadable")
    batch = await bench.plan(paths)

    await bench.analyze(batch.batch_id, 0, 4)

    assert await bench.states(batch.batch_id) == ["done"] * 4 + ["failed"]
    assert [file.status for file in await bench.files()] == [
        FileStatus.ANALYZED,
        FileStatus.TRUNCATED,
        FileStatus.SILENT,
        FileStatus.SHORT,
        FileStatus.REJECTED,
    ]
    assert {result.content_hash for result in await bench.results()} == {
        file.content_hash for file in (await bench.files())[:4]
    }
    [failed] = await failed_items(bench.connections, batch.batch_id)
    assert (failed.path, failed.code) == (paths[4], "rejected:unreadable")
    assert await bench.dirty() == {file.id for file in await bench.files()}
    assert bench.drains == 1
    assert await finish(bench.connections, batch.batch_id)


async def test_a_file_is_described_by_its_measurements_and_its_name(bench: Any) -> None:
    batch = await bench.plan(bench.write("analyzed"))
    await bench.analyze(batch.batch_id, 0, 0)

    [file], [result] = await bench.files(), await bench.results()

    assert (file.tempo_bpm, file.key, file.kind, file.revision) == (128.0, "F# minor", "loop", 1)
    assert (file.format, file.sample_rate_hz, file.duration_s) == ("WAV", 44_100, 1.2)
    assert file.name_evidence["tempo_bpm"] == 128.0
    assert "loop" in file.tags
    assert file.analysis_id == result.id
    assert result.vector().shape == (128,)
    assert result.measurements["spectral"]["centroid_hz_mean"] > 0
    assert all(result.block(name).size for name in BLOCK_SIZES)


async def test_an_unchanged_file_is_skipped_without_being_decoded(bench: Any) -> None:
    paths = bench.write("analyzed", "analyzed")
    first = await bench.plan(paths)
    await bench.analyze(first.batch_id, 0, 1)
    await bench.connections.broker.flushdb()
    bench.looked_into.clear()

    second = await bench.plan(paths)
    await bench.analyze(second.batch_id, 0, 1)

    assert await bench.states(second.batch_id) == ["skipped", "skipped"]
    assert bench.looked_into == []
    assert [file.revision for file in await bench.files()] == [1, 1]
    assert await bench.dirty() == set()
    assert len(await bench.results()) == 2


async def test_an_unchanged_bad_file_fails_again_without_being_decoded(bench: Any) -> None:
    paths = bench.write("rejected:unreadable")
    first = await bench.plan(paths)
    await bench.analyze(first.batch_id, 0, 0)
    bench.looked_into.clear()

    second = await bench.plan(paths)
    await bench.analyze(second.batch_id, 0, 0)

    assert await bench.states(second.batch_id) == ["failed"]
    assert bench.looked_into == []
    [failed] = await failed_items(bench.connections, second.batch_id)
    assert failed.code == "rejected:unreadable"


async def test_a_file_refused_by_a_limit_is_looked_at_again(bench: Any) -> None:
    paths = bench.write("rejected:too_long")
    for _ in range(2):
        batch = await bench.plan(paths)
        await bench.analyze(batch.batch_id, 0, 0)
    assert len(bench.looked_into) == 2


async def test_changed_content_is_analysed_and_raises_the_revision(bench: Any) -> None:
    [path] = bench.write("analyzed")
    await bench.analyze((await bench.plan([path])).batch_id, 0, 0)
    path.write_text("silent now")
    await bench.analyze((await bench.plan([path])).batch_id, 0, 0)

    [file] = await bench.files()
    assert (file.status, file.revision, file.tempo_bpm) == (FileStatus.SILENT, 2, None)
    assert len(await bench.results()) == 2


async def test_a_newer_analyser_adds_a_version_and_keeps_the_old_one(bench: Any) -> None:
    paths = bench.write("analyzed")
    await bench.analyze((await bench.plan(paths)).batch_id, 0, 0)
    bench.version = "2.0.0"
    await bench.analyze((await bench.plan(paths)).batch_id, 0, 0)

    [file] = await bench.files()
    results = {result.analyzer_version: result for result in await bench.results()}
    assert results.keys() == {"1.0.0", "2.0.0"}
    assert file.analysis_id == results["2.0.0"].id


async def test_a_file_that_cannot_be_opened_fails_and_leaves_the_library_as_it_is(
    bench: Any,
) -> None:
    [path] = bench.write("analyzed")
    await bench.analyze((await bench.plan([path])).batch_id, 0, 0)
    before = await bench.files()

    def refuse(_: Path, __: bool) -> Any:
        from samplemind.audio.analysis import FileAnalysis
        from samplemind.audio.filename import read_name
        from samplemind.audio.outcome import Outcome

        outcome = Outcome.PERMISSION
        return FileAnalysis(path, outcome, outcome.message, read_name(path))

    path.write_text("analyzed but changed")
    bench._analyze = refuse
    batch = await bench.plan([path])
    await bench.analyze(batch.batch_id, 0, 0)

    assert await bench.states(batch.batch_id) == ["failed"]
    assert await bench.files() == before


async def test_a_disk_error_gives_the_file_back_until_the_last_attempt(bench: Any) -> None:
    batch = await bench.plan(bench.write("analyzed", "broken disk", "analyzed"))
    attempts = bench.connections.settings.batch.max_attempts

    reports = [await bench.analyze(batch.batch_id, 0, 2) for _ in range(attempts)]

    assert [report.again for report in reports] == [1] * (attempts - 1) + [0]
    # In a process of its own only after it was at fault, or may have been, alone.
    assert [isolated for path, isolated in bench.looked_into if "Loop 1" in path.name] == [
        False,
        False,
        *[True] * (attempts - 2),
    ]
    [failed] = await failed_items(bench.connections, batch.batch_id)
    assert failed.code == "transient"
    assert "disk did not answer" in failed.message
    assert await finish(bench.connections, batch.batch_id)


async def test_an_interrupted_chunk_stores_what_it_has_and_gives_the_rest_back(bench: Any) -> None:
    batch = await bench.plan(bench.write(*["analyzed"] * 4))

    def interrupt(path: Path) -> None:
        if "Loop 2" in path.name:
            raise bench.interruption

    bench.before_analysis = interrupt
    with pytest.raises(bench.interruption):
        await bench.analyze(batch.batch_id, 0, 3)

    items = await bench.items(batch.batch_id)
    assert [item.state for item in items] == ["done", "done", "pending", "pending"]
    assert [item.claims for item in items] == [1, 1, 1, 0]
    assert len(await bench.results()) == 2


async def test_only_the_file_that_ends_its_worker_is_blamed_for_it(bench: Any) -> None:
    batch = await bench.plan(bench.write("analyzed", "analyzed", "analyzed"))
    attempts = bench.connections.settings.batch.max_attempts

    class WorkerDied(BaseException):
        """Stands for SIGKILL: nothing of the worker's own runs after it."""

    def die(path: Path) -> None:
        if "Loop 1" in path.name:
            raise WorkerDied

    bench.before_analysis = die
    work = "samplemind.batches.chunks._ChunkWork.give_back"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, lambda _: None)
        for _ in range(attempts + 1):
            with pytest.raises(WorkerDied):
                await bench.analyze(batch.batch_id, 0, 2)
    await bench.analyze(batch.batch_id, 0, 2)

    assert await bench.states(batch.batch_id) == ["done", "failed", "done"]
    [failed] = await failed_items(bench.connections, batch.batch_id)
    assert (failed.seq, failed.code) == (1, "worker_lost")


async def test_memory_that_runs_out_sends_the_file_to_the_guarded_child(bench: Any) -> None:
    batch = await bench.plan(bench.write("analyzed"))

    def run_out(_: Path) -> None:
        if not bench.looked_into[-1][1]:
            raise MemoryError

    bench.before_analysis = run_out
    await bench.analyze(batch.batch_id, 0, 0)

    assert await bench.states(batch.batch_id) == ["done"]
    assert [alone for _, alone in bench.looked_into] == [False, True]


async def test_a_cancelled_batch_stops_its_workers_and_counts_nothing_more(bench: Any) -> None:
    batch = await bench.plan(bench.write(*["analyzed"] * 40), chunk_size=40)

    def cancel_at_the_tenth(path: Path) -> None:
        if "Loop 10 " in path.name:
            assert bench.run(cancel(bench.connections, batch.batch_id))

    bench.before_analysis = cancel_at_the_tenth
    report = await bench.analyze(batch.batch_id, 0, 39)

    assert report.stopped
    assert len(bench.looked_into) < 40
    state = await progress(bench.connections, batch.batch_id)
    assert (state.state, state.cancelled, state.done) == ("cancelled", 40, 0)
    assert not await finish(bench.connections, batch.batch_id)
    assert (await bench.analyze(batch.batch_id, 0, 39)).claimed == 0


@pytest.fixture
def short_claims(bench: Any, monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds that a claim lasts in this test: far less than its analysis takes."""
    settings, seconds = bench.connections.settings, 0.6
    short = settings.model_copy(
        update={"batch": settings.batch.model_copy(update={"claim_s": seconds})}
    )
    monkeypatch.setattr(bench.connections, "settings", short)
    return seconds


async def test_a_claim_is_kept_while_one_file_takes_longer_than_it_lasts(
    bench: Any, short_claims: float
) -> None:
    batch = await bench.plan(bench.write("analyzed", "analyzed"))
    seen: list[int] = []

    def take_long(path: Path) -> None:
        ready = time.monotonic() + 2.5 * short_claims
        while "Loop 0" in path.name and time.monotonic() < ready:
            other = bench.run(claim(bench.connections, batch.batch_id, 0, 1, job_id="other"))
            seen.append(len(other.items) + len(bench.run(bench.rescue())))

    bench.before_analysis = take_long
    report = await bench.analyze(batch.batch_id, 0, 1)

    assert set(seen) == {0}
    assert (report.claimed, report.stopped) == (2, False)
    assert [item.claims for item in await bench.items(batch.batch_id)] == [1, 1]


async def test_a_renewal_that_fails_is_repeated(
    bench: Any, short_claims: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await bench.plan(bench.write("analyzed"))
    extend, failures = BatchItemRepository.extend, iter([StoreUnavailableError, PoolTimeoutError])
    kept = threading.Event()

    async def fail_twice(self: BatchItemRepository, *args: Any, **kwargs: Any) -> int:
        for failure in failures:
            raise failure("MongoDB did not answer")
        held = await extend(self, *args, **kwargs)
        kept.set()
        return held

    monkeypatch.setattr(BatchItemRepository, "extend", fail_twice)
    bench.before_analysis = lambda _: kept.wait(20 * short_claims)
    await bench.analyze(batch.batch_id, 0, 0)

    assert kept.is_set()
    assert await bench.states(batch.batch_id) == ["done"]


async def test_a_chunk_leaves_nothing_behind_that_renews_its_claim(
    bench: Any, short_claims: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await bench.plan(bench.write("analyzed"))
    with monkeypatch.context() as patch:
        patch.setattr(BatchItemRepository, "end", away)
        with pytest.raises(StoreUnavailableError):
            await bench.analyze(batch.batch_id, 0, 0)

    deadline = time.monotonic() + 10 * short_claims
    while not await bench.rescue():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_file_that_breaks_the_analysis_fails_alone_and_stops_no_other(bench: Any) -> None:
    batch = await bench.plan(bench.write("analyzed", "analyzed", "analyzed"))

    def break_down(path: Path) -> None:
        if "Loop 1" in path.name:
            raise ZeroDivisionError("a text that may hold a secret")

    bench.before_analysis = break_down
    await bench.analyze(batch.batch_id, 0, 2)

    assert await bench.states(batch.batch_id) == ["done", "failed", "done"]
    assert [alone for path, alone in bench.looked_into if "Loop 1" in path.name] == [False, True]
    [failed] = await failed_items(bench.connections, batch.batch_id)
    assert failed.code == "error"
    assert "ZeroDivisionError" in failed.message
    assert "secret" not in failed.message


async def test_a_file_that_breaks_the_analysis_here_may_pass_in_a_process_of_its_own(
    bench: Any,
) -> None:
    batch = await bench.plan(bench.write("analyzed"))

    def break_down(_: Path) -> None:
        if not bench.looked_into[-1][1]:
            raise ZeroDivisionError

    bench.before_analysis = break_down
    await bench.analyze(batch.batch_id, 0, 0)

    assert await bench.states(batch.batch_id) == ["done"]


async def test_claims_that_were_lost_are_no_attempts_to_read_a_file(bench: Any) -> None:
    batch = await bench.plan(bench.write("broken disk"))
    attempts = bench.connections.settings.batch.max_attempts
    for number in range(2 * attempts):
        taken = await claim(bench.connections, batch.batch_id, 0, 0, job_id=str(number))
        assert await release(bench.connections, taken) == 1

    reports = [await bench.analyze(batch.batch_id, 0, 0) for _ in range(attempts)]

    assert [report.again for report in reports] == [1] * (attempts - 1) + [0]
    [failed] = await failed_items(bench.connections, batch.batch_id)
    assert failed.code == "transient"
    assert f"in {attempts} attempts" in failed.message


async def away(*_: Any, **__: Any) -> None:
    message = "MongoDB did not answer"
    raise StoreUnavailableError(message)


async def test_results_are_dated_by_the_look_at_the_file(bench: Any) -> None:
    batch = await bench.plan(bench.write("analyzed"))
    await bench.analyze(batch.batch_id, 0, 0)
    [file] = await bench.files()
    result = await AnalysisResult.get(file.analysis_id)
    assert result is not None
    assert abs(result.created_at - file.observed_at) < timedelta(milliseconds=1)
