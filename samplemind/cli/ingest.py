"""`samplemind ingest`: submit files as a batch, and wait for it if asked."""

import asyncio
import sys
from pathlib import Path
from uuid import UUID

import click

from samplemind.batches import Progress
from samplemind.cli.following import counts, errors_of, follow, print_summary
from samplemind.cli.output import console, error_console, json_option, print_json
from samplemind.cli.session import with_connections
from samplemind.connections.resources import Connections
from samplemind.jobs.client import Jobs, Submission
from samplemind.settings import get_settings


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--owner", metavar="EMAIL", help="Whose files they are; none: the library's own.")
@click.option("--wait", is_flag=True, help="Show progress until the batch has ended.")
@json_option
def ingest(paths: tuple[Path, ...], owner: str | None, wait: bool, as_json: bool) -> None:
    """Submit files for analysis; folders stand for the audio files below them.

    Files that are in the library with the same content are not analysed again. With --wait, exits
    with 1 if every file failed.

    Example: samplemind ingest ~/samples --wait
    """
    submission = asyncio.run(_submit(paths, owner))
    if not submission.files:
        error_console.print("There are no audio files in what was named.")
    if wait:
        _wait(submission, as_json)
    elif as_json:
        print_json({"batch_id": submission.batch_id, "files": submission.files})
    else:
        console.print(f"Batch {submission.batch_id}: {submission.files} files submitted.")
        console.print(f"Follow it with: samplemind batch watch {submission.batch_id}")


async def _submit(paths: tuple[Path, ...], owner: str | None) -> Submission:
    async with Jobs(get_settings()) as jobs:
        return await jobs.submit_batch(paths, owner=owner)


def _wait(submission: Submission, as_json: bool) -> None:
    try:
        now, errors = with_connections(lambda connections: _ended(connections, submission.batch_id))
    except KeyboardInterrupt:
        error_console.print(
            f"The batch goes on. Follow it with: samplemind batch watch {submission.batch_id}"
        )
        raise
    if as_json:
        print_json(
            {
                "batch_id": submission.batch_id,
                "files": submission.files,
                **counts(now),
                "errors": errors,
            }
        )
    else:
        print_summary(now, errors)
    if now.failed and not now.done and not now.skipped:
        sys.exit(1)


async def _ended(connections: Connections, batch_id: UUID) -> tuple[Progress, list[dict[str, str]]]:
    now = await follow(connections, batch_id)
    return now, await errors_of(connections, now)
