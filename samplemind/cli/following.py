"""Following a batch to its end, and the report that commands print of it."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from samplemind.audio.filename import printable_path
from samplemind.batches import FailedItem, Progress, failed_items, progress
from samplemind.cli.output import console, print_table
from samplemind.cli.progress import progress_bar
from samplemind.connections.resources import Connections
from samplemind.documents.batch_job import BatchState

_POLL_S = 0.2
_SHOWN_FAILURES = 20
_ENDED = (BatchState.FINISHED, BatchState.CANCELLED)


async def follow(connections: Connections, batch_id: UUID) -> Progress:
    """Show a bar until the batch has ended; return where it stands then.

    Raises:
        NotFoundError: there is no such batch.
    """
    with progress_bar() as bar:
        task = bar.add_task("Working", total=None)
        while True:
            now = await progress(connections, batch_id)
            bar.update(
                task,
                completed=now.ended,
                total=now.total,
                description="Paused" if now.state is BatchState.PAUSED else "Working",
            )
            if now.state in _ENDED:
                return now
            await asyncio.sleep(_POLL_S)


async def errors_of(connections: Connections, now: Progress) -> list[dict[str, str]]:
    """Return each failed file as path, code and message."""
    if not now.failed:
        return []
    return [
        _error(item) for item in await failed_items(connections, now.batch_id, limit=now.failed)
    ]


def counts(now: Progress) -> dict[str, Any]:
    """Return a batch's counts as every command's JSON has them."""
    return {
        "kind": now.kind,
        "state": now.state.value,
        "total": now.total,
        "pending": now.pending,
        "claimed": now.claimed,
        "done": now.done,
        "failed": now.failed,
        "skipped": now.skipped,
        "cancelled": now.cancelled,
        "seconds": round(now.seconds, 3),
        "rate_per_s": round(now.rate, 3),
        "eta_s": None if now.eta is None else round(now.eta, 1),
    }


def print_summary(
    now: Progress, errors: Sequence[dict[str, str]], *, all_errors: bool = False
) -> None:
    """Print one line on the batch, and the files that failed: the first ones, or all."""
    console.print(
        f"Batch {now.batch_id} {now.state.value}: {now.done} done, {now.skipped} skipped, "
        f"{now.failed} failed of {now.total} in {now.seconds:.1f} s",
        soft_wrap=True,
    )
    if errors:
        shown = errors if all_errors else errors[:_SHOWN_FAILURES]
        print_table(
            ("file", "code", "what to do"),
            ((error["path"], error["code"], error["message"]) for error in shown),
        )
        if len(errors) > len(shown):
            console.print(
                f"… and {len(errors) - len(shown)} more: samplemind batch show {now.batch_id}"
            )


def _error(item: FailedItem) -> dict[str, str]:
    return {"path": printable_path(item.path), "code": item.code, "message": item.message}
