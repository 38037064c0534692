"""`samplemind batch`: look at batches, follow, cancel or retry them."""

import sys
from typing import Any
from uuid import UUID

import click

from samplemind.batches import Progress, cancel, progress, retry_failed
from samplemind.cli.following import counts, errors_of, follow, print_summary
from samplemind.cli.output import console, json_option, print_json, print_table
from samplemind.cli.session import with_connections
from samplemind.connections.resources import Connections
from samplemind.errors import ConflictError
from samplemind.ids import new_id
from samplemind.jobs.client import producer, publish_chunks
from samplemind.repositories.batch_jobs import BatchJobRepository


@click.group()
def batch() -> None:
    """Look at batches, follow, cancel or retry them."""


@batch.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@json_option
def list_batches(limit: int, as_json: bool) -> None:
    """List batches, the last submitted first.

    Example: samplemind batch list --limit 5
    """

    async def work(connections: Connections) -> list[Progress]:
        await connections.documents()
        jobs = await BatchJobRepository().list_newest(limit=limit)
        return [await progress(connections, job.id) for job in jobs]

    found = with_connections(work)
    if as_json:
        print_json({"batches": [{"id": now.batch_id, **counts(now)} for now in found]})
        return
    print_table(
        ("batch", "state", "total", "done", "unchanged", "failed", "seconds"),
        (
            (
                now.batch_id,
                now.state.value,
                now.total,
                now.done,
                now.skipped,
                now.failed,
                f"{now.seconds:.1f}",
            )
            for now in found
        ),
    )


@batch.command()
@click.argument("batch_id", type=click.UUID)
@json_option
def show(batch_id: UUID, as_json: bool) -> None:
    """Show where a batch stands, and its failed files.

    Example: samplemind batch show 0197c3a2-… --json
    """

    async def work(connections: Connections) -> tuple[Progress, list[dict[str, str]]]:
        now = await progress(connections, batch_id)
        return now, await errors_of(connections, now)

    _print(*with_connections(work), as_json)


@batch.command()
@click.argument("batch_id", type=click.UUID)
@json_option
def watch(batch_id: UUID, as_json: bool) -> None:
    """Show progress until a batch has ended.

    Example: samplemind batch watch 0197c3a2-…
    """

    async def work(connections: Connections) -> tuple[Progress, list[dict[str, str]]]:
        now = await follow(connections, batch_id)
        return now, await errors_of(connections, now)

    _print(*with_connections(work), as_json)


@batch.command("cancel")
@click.argument("batch_id", type=click.UUID)
@json_option
def cancel_batch(batch_id: UUID, as_json: bool) -> None:
    """Cancel what has not ended of a batch; what was found is kept.

    Exits with 1 if the batch had ended before.

    Example: samplemind batch cancel 0197c3a2-…
    """

    async def work(connections: Connections) -> tuple[bool, Progress]:
        cancelled = await cancel(connections, batch_id)
        return cancelled, await progress(connections, batch_id)

    cancelled, now = with_connections(work)
    if as_json:
        print_json({"id": batch_id, "cancelled_now": cancelled, **counts(now)})
    elif cancelled:
        console.print(f"Cancelled: {now.cancelled} of {now.total} files were not analysed.")
    else:
        console.print(f"The batch had ended before: {now.state.value}.")
    if not cancelled:
        sys.exit(1)


@batch.command()
@click.argument("batch_id", type=click.UUID)
@json_option
def retry(batch_id: UUID, as_json: bool) -> None:
    """Try the failed files of a batch again.

    Files whose content was refused are refused again, unless they were replaced.

    Example: samplemind batch retry 0197c3a2-…
    """

    async def work(connections: Connections) -> int:
        failed = (await progress(connections, batch_id)).failed
        chunks = await retry_failed(connections, batch_id)
        with producer(connections.settings) as app:
            publish_chunks(app, batch_id, chunks, attempt=new_id().hex)
        return failed

    try:
        retried = with_connections(work)
    except ConflictError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        print_json({"id": batch_id, "retried": retried})
    else:
        console.print(f"{retried} files will be tried again: samplemind batch watch {batch_id}")


def _print(now: Progress, errors: list[dict[str, str]], as_json: bool) -> None:
    if not as_json:
        print_summary(now, errors, all_errors=True)
        return
    found: dict[str, Any] = {"id": now.batch_id, **counts(now), "items_failed": errors}
    print_json(found)
