"""The decisions about batches, without a store."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from samplemind.audio.outcome import Outcome
from samplemind.batches.claims import Claim, ClaimedItem
from samplemind.batches.counting import measure_progress
from samplemind.batches.outcomes import can_reuse, outcome_of_known
from samplemind.batches.planning import PATIENCE, BatchPlan
from samplemind.batches.rescue import examine_lost, time_of
from samplemind.documents import (
    AudioFile,
    BatchItem,
    BatchJob,
    BatchState,
    FileStatus,
    ItemState,
)
from samplemind.ids import new_id
from samplemind.repositories.batch_items import Chunk

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BATCH = new_id()
ITEM = ClaimedItem(new_id(), 0, Path("/music/a.wav"), claims=1, attempts=0, trials=0)
CLAIM = Claim(Chunk(BATCH, 0, 0), None, new_id(), (ITEM,))


def id_made_at(moment: datetime, number: int = 0) -> UUID:
    return UUID(int=round(moment.timestamp() * 1000) << 80 | 0x7 << 76 | 0b10 << 62 | number)


def job(**fields: Any) -> BatchJob:
    basis: dict[str, Any] = {
        "id": BATCH,
        "total": 10,
        "chunk_size": 4,
        "state": BatchState.RUNNING,
        "started_at": NOW,
        "finished_at": None,
    }
    return BatchJob.model_construct(**basis | fields)


def lost(*numbers: int, made: datetime = NOW) -> list[BatchItem]:
    return [
        BatchItem.model_construct(id=id_made_at(made, seq), batch_id=BATCH, seq=seq)
        for seq in numbers
    ]


def known(**fields: Any) -> AudioFile:
    basis: dict[str, Any] = {
        "id": new_id(),
        "content_hash": "0" * 64,
        "analyzer_version": "1",
        "outcome": "analyzed",
        "status": FileStatus.ANALYZED,
        "message": "",
        "batch_id": None,
    }
    return AudioFile.model_construct(**basis | fields)


@pytest.mark.parametrize(("total", "size"), [(0, 4), (1, 4), (4, 4), (5, 4), (9, 1), (100, 32)])
def test_chunks_cover_every_item_once(total: int, size: int) -> None:
    chunks = BatchPlan(BATCH, total, size).chunks
    covered = [seq for first, last in chunks for seq in range(first, last + 1)]
    assert covered == list(range(total))
    assert all(last - first < size for first, last in chunks)


def test_an_id_tells_when_it_was_made() -> None:
    assert abs(time_of(new_id()) - datetime.now(UTC)) < timedelta(seconds=5)
    assert time_of(id_made_at(NOW)) == NOW


def test_lost_items_are_published_by_chunk() -> None:
    findings = examine_lost(lost(0, 3, 9), {BATCH: job()}, NOW)
    assert findings.publish == [Chunk(BATCH, 0, 3), Chunk(BATCH, 8, 9)]
    assert findings.patience[BATCH] == PATIENCE


@pytest.mark.parametrize(
    ("age", "wait"),
    [
        (timedelta(seconds=10), PATIENCE),
        (timedelta(minutes=20), timedelta(minutes=20)),
        (timedelta(days=9), timedelta(hours=1)),
    ],
)
def test_old_items_are_published_more_rarely(age: timedelta, wait: timedelta) -> None:
    findings = examine_lost(lost(0, made=NOW - age), {BATCH: job()}, NOW)
    assert findings.patience[BATCH] == wait


def test_what_an_ended_batch_left_open_is_put_right() -> None:
    finished = examine_lost(lost(0), {BATCH: job(state=BatchState.FINISHED)}, NOW)
    assert (finished.reopen, finished.publish) == ([BATCH], [Chunk(BATCH, 0, 3)])
    cancelled = examine_lost(lost(0), {BATCH: job(state=BatchState.CANCELLED)}, NOW)
    assert (cancelled.cancel, cancelled.publish) == ([BATCH], [])


def test_items_without_a_batch_wait_a_day_before_they_are_forgotten() -> None:
    young = examine_lost(lost(5, 7), {}, NOW + timedelta(hours=23))
    assert (young.planning, young.forget) == ([Chunk(BATCH, 5, 7)], [])
    old = examine_lost(lost(5, 7), {}, NOW + timedelta(hours=25))
    assert (old.planning, old.forget) == ([], [BATCH])


def counts(**given: int) -> dict[str, int]:
    return {state.value: 0 for state in ItemState} | given


def test_progress_tells_rate_and_time_left() -> None:
    seen = measure_progress(job(), counts(done=4, failed=1, pending=5), NOW + timedelta(seconds=2))
    assert (seen.ended, seen.seconds, seen.rate, seen.eta) == (5, 2.0, 2.5, 2.0)


def test_progress_without_a_rate_tells_no_time_left() -> None:
    waiting = job(state=BatchState.PENDING, started_at=None)
    seen = measure_progress(waiting, counts(pending=10), NOW)
    assert (seen.seconds, seen.rate, seen.eta) == (0.0, 0.0, None)


def test_the_clock_of_an_ended_batch_stands() -> None:
    ended = job(state=BatchState.FINISHED, finished_at=NOW + timedelta(seconds=5))
    seen = measure_progress(ended, counts(done=10), NOW + timedelta(days=1))
    assert (seen.seconds, seen.rate, seen.eta) == (5.0, 2.0, 0.0)


@pytest.mark.parametrize(
    "fields",
    [
        {"content_hash": None},
        {"analyzer_version": "0"},
        {"outcome": None, "status": FileStatus.PENDING},
        {"outcome": Outcome.TOO_LONG.value, "status": FileStatus.REJECTED},
        {"outcome": Outcome.DECODER_CRASHED.value, "status": FileStatus.REJECTED},
        {"outcome": Outcome.DECODER_TIMEOUT.value, "status": FileStatus.REJECTED},
    ],
)
def test_a_stored_analysis_is_not_reused(fields: dict[str, Any]) -> None:
    assert not can_reuse(known(**fields), "1")


@pytest.mark.parametrize("outcome", [Outcome.ANALYZED, Outcome.SILENT, Outcome.UNREADABLE])
def test_a_stored_analysis_of_the_same_version_is_reused(outcome: Outcome) -> None:
    assert can_reuse(known(outcome=outcome.value), "1")
    assert not can_reuse(None, "1")


def test_a_stored_analysis_is_a_skip_unless_this_batch_made_it() -> None:
    assert outcome_of_known(CLAIM, ITEM, known()).state is ItemState.SKIPPED
    assert outcome_of_known(CLAIM, ITEM, known(batch_id=BATCH)).state is ItemState.DONE


def test_a_stored_rejection_fails_with_its_reason() -> None:
    rejected = known(
        status=FileStatus.REJECTED, outcome="rejected:unreadable", message="It is damaged."
    )
    outcome = outcome_of_known(CLAIM, ITEM, rejected)
    assert outcome.state is ItemState.FAILED
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.message) == (
        "rejected:unreadable",
        "It is damaged.",
    )
