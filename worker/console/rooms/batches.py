"""Batches: how far each is, what failed in it and why; pausing, resuming, cancelling, retrying."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, ClassVar
from urllib.parse import urlencode
from uuid import UUID

from samplemind.audio.filename import printable_path
from samplemind.batches import (
    FailedItem,
    Progress,
    cancel,
    failed_items,
    pause,
    progress_of,
    resume,
    retry_failed,
)
from samplemind.connections.resources import Connections
from samplemind.documents.batch_job import OPEN_BATCHES, BatchJob, BatchState
from samplemind.jobs.publishing import feed_batch
from samplemind.repositories.batch_items import BatchItemRepository
from samplemind.repositories.batch_jobs import BatchJobRepository
from worker.console import wording
from worker.console.reading import Panel, Reading, Subject
from worker.console.room import Action, Outcome, Page, Room

_BATCHES_ON_A_PAGE = 50
_FAILURES_ON_A_PAGE = 50
_MOST_PAGES = 100_000
_ID = r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"


@dataclass(frozen=True, slots=True)
class Line:
    """One batch as a list shows it."""

    progress: Progress
    created_at: datetime
    roots: tuple[str, ...]
    owner_id: UUID | None

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.progress.state in OPEN_BATCHES


class BatchesPage(Page):
    """All batches, the last submitted first."""

    template, room = "batches.html", "batches"

    def panels(self, *_: str) -> Mapping[str, Panel]:
        """Read one page of the list, and how many there are of each state."""
        state, page = self._state(), self._page()
        return {
            "lines": Panel(
                partial(_list, self.connections, state, page), Subject.BATCHES, key=(state, page)
            ),
            "counts": Panel(partial(_count, self.connections), Subject.BATCHES, fresh_s=4),
        }

    def facts(self, readings: Mapping[str, Reading]) -> Mapping[str, Any]:
        """Return what was chosen, and where the neighbouring pages are."""
        state, page, counts = self._state(), self._page(), readings["counts"]
        known = counts.value if counts.ready else {}
        total = known.get(state.value, 0) if state else sum(known.values())
        return {
            "chosen": state,
            "states": tuple(BatchState),
            "total": total,
            "newer": _address(state, page - 1) if page > 1 else None,
            "older": _address(state, page + 1) if page * _BATCHES_ON_A_PAGE < total else None,
            "first": (page - 1) * _BATCHES_ON_A_PAGE + 1,
            "state_of": state_of,
        }

    def _state(self) -> BatchState | None:
        given = self.text("state")
        return BatchState(given) if given in tuple(BatchState) else None

    def _page(self) -> int:
        return self.whole("page", 1, least=1, most=_MOST_PAGES)


class BatchPage(Page):
    """One batch, and what failed in it."""

    template, room = "batch.html", "batches"

    def panels(self, *arguments: str) -> Mapping[str, Panel]:
        """Read the batch, a page of its failed files, and why files failed."""
        batch_id, after = UUID(arguments[0]), self._after()
        return {
            "line": Panel(
                partial(_get, self.connections, batch_id), Subject.BATCHES, key=(batch_id,)
            ),
            "failures": Panel(
                partial(_failures, self.connections, batch_id, after),
                Subject.BATCHES,
                key=(batch_id, after),
                fresh_s=3,
            ),
            "reasons": Panel(
                partial(_reasons, self.connections, batch_id),
                Subject.BATCHES,
                key=(batch_id,),
                fresh_s=5,
            ),
        }

    def facts(self, readings: Mapping[str, Reading]) -> Mapping[str, Any]:
        """Return where the next failed files are."""
        failures = readings["failures"]
        more = failures.ready and len(failures.value) > _FAILURES_ON_A_PAGE
        shown = failures.value[:_FAILURES_ON_A_PAGE] if failures.ready else []
        return {
            "batch_id": self.path_args[0],
            "shown": shown,
            "after": self._after(),
            "next_after": shown[-1].seq if more else None,
            "printable": printable_path,
            "state_of": state_of,
        }

    def _after(self) -> int:
        return self.whole("after", -1, least=-1, most=10**9)


class BatchAction(Action):
    """Something done to one batch."""

    resource_kind: ClassVar[str] = "batch"
    changes = (Subject.BATCHES, Subject.JOBS)


class PauseBatch(BatchAction):
    """Begins nothing more of it."""

    action, question = "console.pause_batch", "Pause this batch?"

    async def act(self, *arguments: str) -> Outcome:
        """Pause it, unless it is paused or has ended."""
        paused = await pause(self.connections, UUID(arguments[0]))
        if not paused:
            return Outcome("The batch is paused already, or has ended.", ok=False)
        return Outcome("The batch is paused: what workers have begun ends within seconds.")


class ResumeBatch(BatchAction):
    """Lets it go on."""

    action, question = "console.resume_batch", "Let this batch go on?"

    async def act(self, *arguments: str) -> Outcome:
        """Resume it if it is paused, and hand out what comes next."""
        batch_id = UUID(arguments[0])
        resumed = await resume(self.connections, batch_id)
        await feed_batch(self.connections, batch_id)
        if not resumed:
            return Outcome("The batch was not paused.", ok=False)
        return Outcome("The batch goes on.")


class CancelBatch(BatchAction):
    """Ends what has not ended."""

    action = "console.cancel_batch"
    question = "Cancel this batch? What is done is kept; the rest is never done."

    async def act(self, *arguments: str) -> Outcome:
        """Cancel it, unless it has ended."""
        batch_id = UUID(arguments[0])
        cancelled = await cancel(self.connections, batch_id)
        now = (await _get(self.connections, batch_id)).progress
        if not cancelled:
            return Outcome(f"The batch had ended before: {now.state.value}.", ok=False)
        left = wording.number(now.cancelled)
        return Outcome(f"Cancelled: {left} of {wording.number(now.total)} files were left.")


class RetryBatch(BatchAction):
    """Tries the failed files again."""

    action = "console.retry_batch"
    question = "Try the failed files of this batch again?"

    async def act(self, *arguments: str) -> Outcome:
        """Open the failed files again, and hand out what comes next."""
        batch_id = UUID(arguments[0])
        retried = await retry_failed(self.connections, batch_id)
        await feed_batch(self.connections, batch_id)
        if not retried:
            return Outcome("No file of the batch has failed.", ok=False)
        return Outcome(
            f"{wording.number(retried)} files will be tried again.", details={"files": retried}
        )


def state_of(progress: Progress) -> tuple[str, str]:
    """Return how a batch's state looks, and its word."""
    if progress.state is BatchState.FINISHED and progress.failed:
        return "warning", "finished, some failed"
    looks = {
        BatchState.PENDING: "muted",
        BatchState.RUNNING: "active",
        BatchState.PAUSED: "warning",
        BatchState.FINISHED: "success",
        BatchState.CANCELLED: "muted",
    }
    return looks[progress.state], progress.state.value


async def _list(connections: Connections, state: BatchState | None, page: int) -> list[Line]:
    await connections.documents()
    jobs = await BatchJobRepository().list_newest(
        state=state, skip=(page - 1) * _BATCHES_ON_A_PAGE, limit=_BATCHES_ON_A_PAGE
    )
    found = await progress_of(connections, jobs)
    return [_line(job, now) for job, now in zip(jobs, found, strict=True)]


async def _count(connections: Connections) -> dict[str, int]:
    await connections.documents()
    return await BatchJobRepository().count_by_state()


async def _get(connections: Connections, batch_id: UUID) -> Line:
    await connections.documents()
    job = await BatchJobRepository().get(batch_id)
    (now,) = await progress_of(connections, [job])
    return _line(job, now)


async def _failures(connections: Connections, batch_id: UUID, after: int) -> list[FailedItem]:
    # One more than is shown tells whether there are more.
    return await failed_items(connections, batch_id, limit=_FAILURES_ON_A_PAGE + 1, after=after)


async def _reasons(connections: Connections, batch_id: UUID) -> dict[str, int]:
    await connections.documents()
    return await BatchItemRepository().count_failed_by_code(batch_id)


def _line(job: BatchJob, now: Progress) -> Line:
    return Line(now, job.created_at, tuple(job.roots), job.owner_id)


def _address(state: BatchState | None, page: int) -> str:
    return "/batches?" + urlencode({"state": state.value if state else "", "page": page})


ROOM = Room(
    "batches",
    "Batches",
    (
        ("/batches", BatchesPage),
        (f"/batches/{_ID}", BatchPage),
        (f"/batches/{_ID}/pause", PauseBatch),
        (f"/batches/{_ID}/resume", ResumeBatch),
        (f"/batches/{_ID}/cancel", CancelBatch),
        (f"/batches/{_ID}/retry", RetryBatch),
    ),
)
