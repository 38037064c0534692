"""`samplemind batch`: start batches, look at them, follow, pause, cancel or retry them."""

import sys
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from samplemind.batches import (
    BatchPlan,
    Progress,
    cancel,
    feed,
    find_kind,
    kind_names,
    pause,
    progress,
    progress_of,
    resume,
    retry_failed,
)
from samplemind.batches.submit import write_batch, write_batch_of_owner
from samplemind.cli.following import counts, errors_of, follow, print_summary
from samplemind.cli.output import console, json_option, print_json, print_table
from samplemind.cli.session import with_connections
from samplemind.connections.resources import Connections
from samplemind.errors import ConflictError
from samplemind.jobs.publishing import feed_batch, producer, publish_chunks
from samplemind.repositories.audio_files import AudioFileRepository
from samplemind.repositories.batch_jobs import BatchJobRepository


@click.group()
def batch() -> None:
    """Start batches, look at them, follow, pause, cancel or retry them."""


@batch.command()
@click.argument("kind", type=click.Choice(kind_names()))
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--owner", metavar="EMAIL", help="Whose files they are; none: the library's own.")
@click.option("--everyone", is_flag=True, help="All files of the library, a batch for each owner.")
@click.option("--yes", is_flag=True, help="Don't ask before files are taken out of the library.")
@click.option("--wait", is_flag=True, help="Show progress until the batches have ended.")
@json_option
def start(
    kind: str,
    paths: tuple[Path, ...],
    owner: str | None,
    everyone: bool,
    yes: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Start a batch of a kind over files, folders, or all files of an owner.

    KIND: analyze (as `ingest` does), reanalyze (what an older analyser has seen), reindex, or
    delete (out of the library, not off the disk; asks first).

    Example: samplemind batch start reanalyze --everyone --wait
    """
    if everyone and (paths or owner):
        message = "--everyone stands for all files: name no path and no owner beside it"
        raise click.UsageError(message)
    if find_kind(kind).destroys and not yes:
        click.confirm("These files leave the library, their analyses with them. Go on?", abort=True)

    async def work(connections: Connections) -> list[Progress]:
        with producer(connections.settings) as app:
            plans = await _plan(connections, kind, paths, owner=owner, everyone=everyone)
            for each in plans:
                await feed(connections, each.owner_id, partial(publish_chunks, app))
        if wait:
            return [await follow(connections, each.batch_id) for each in plans]
        return [await progress(connections, each.batch_id) for each in plans]

    started = with_connections(work)
    if as_json:
        print_json({"batches": [{"id": now.batch_id, **counts(now)} for now in started]})
    for now in started if not as_json else ():
        if wait:
            print_summary(now, [])
        else:
            console.print(f"Batch {now.batch_id}: {now.total} files submitted.", soft_wrap=True)


async def _plan(
    connections: Connections,
    kind: str,
    paths: tuple[Path, ...],
    *,
    owner: str | None,
    everyone: bool,
) -> list[BatchPlan]:
    if not everyone:
        return [await write_batch(connections, paths, owner=owner, kind=kind)]
    await connections.documents()
    owners = await AudioFileRepository().list_owners()
    return [await write_batch_of_owner(connections, kind, owner_id) for owner_id in owners]


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
        return await progress_of(connections, jobs)

    found = with_connections(work)
    if as_json:
        print_json({"batches": [{"id": now.batch_id, **counts(now)} for now in found]})
        return
    print_table(
        ("batch", "kind", "state", "total", "done", "skipped", "failed", "seconds"),
        (
            (
                now.batch_id,
                now.kind,
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


@batch.command("pause")
@click.argument("batch_id", type=click.UUID)
@json_option
def pause_batch(batch_id: UUID, as_json: bool) -> None:
    """Begin nothing more of a batch; what workers have begun ends within seconds.

    Exits with 1 if it is paused already, or has ended.

    Example: samplemind batch pause 0197c3a2-…
    """

    async def work(connections: Connections) -> tuple[bool, Progress]:
        paused = await pause(connections, batch_id)
        return paused, await progress(connections, batch_id)

    _print_change("paused", *with_connections(work), as_json)


@batch.command("resume")
@click.argument("batch_id", type=click.UUID)
@json_option
def resume_batch(batch_id: UUID, as_json: bool) -> None:
    """Let a paused batch go on.

    Exits with 1 if it was not paused.

    Example: samplemind batch resume 0197c3a2-…
    """

    async def work(connections: Connections) -> tuple[bool, Progress]:
        resumed = await resume(connections, batch_id)
        await feed_batch(connections, batch_id)
        return resumed, await progress(connections, batch_id)

    _print_change("resumed", *with_connections(work), as_json)


@batch.command("cancel")
@click.argument("batch_id", type=click.UUID)
@json_option
def cancel_batch(batch_id: UUID, as_json: bool) -> None:
    """Cancel what has not ended of a batch; what was done is kept.

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
        console.print(f"Cancelled: {now.cancelled} of {now.total} files were left as they are.")
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
        retried = await retry_failed(connections, batch_id)
        await feed_batch(connections, batch_id)
        return retried

    try:
        retried = with_connections(work)
    except ConflictError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        print_json({"id": batch_id, "retried": retried})
    else:
        console.print(f"{retried} files will be tried again: samplemind batch watch {batch_id}")


def _print_change(done: str, changed: bool, now: Progress, as_json: bool) -> None:
    if as_json:
        print_json({"id": now.batch_id, f"{done}_now": changed, **counts(now)})
    elif changed:
        console.print(f"The batch is {done}: {now.ended} of {now.total} files have ended.")
    else:
        console.print(f"Nothing was changed: the batch is {now.state.value}.")
    if not changed:
        sys.exit(1)


def _print(now: Progress, errors: list[dict[str, str]], as_json: bool) -> None:
    if not as_json:
        print_summary(now, errors, all_errors=True)
        return
    found: dict[str, Any] = {"id": now.batch_id, **counts(now), "items_failed": errors}
    print_json(found)
