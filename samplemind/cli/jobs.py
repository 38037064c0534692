"""`samplemind jobs`: look at jobs, cancel them, and deal with those that died."""

import getpass
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import click

from samplemind.cli.output import console, json_option, print_json, print_table
from samplemind.cli.session import with_connections
from samplemind.connections.resources import Connections
from samplemind.errors import InvalidInputError, NotFoundError
from samplemind.jobs import dead_letters
from samplemind.jobs.client import SyncJobs
from samplemind.jobs.state import JobState, JobStatus
from samplemind.models.dead_letter import DeadLetter, DeadLetterState
from samplemind.repositories.dead_letters import DeadLetterRepository, LetterFilter

_Command = TypeVar("_Command", bound=Callable[..., Any])
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class _Since(click.ParamType[datetime]):
    """A time, or how long ago: `2h`, `3d`, `2026-05-01`."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        if isinstance(value, datetime):
            return value
        if ago := re.fullmatch(r"(\d{1,6})([smhd])", value):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail("write how long ago (30m, 2h, 3d) or a time (2026-05-01T22:00)", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _filters(command: _Command) -> _Command:
    for option in (
        click.option("--text", help="Part of the error or the payload, or a job's id."),
        click.option("--since", type=_Since(), help="Died since: 2h, 3d, or a time in UTC."),
        click.option("--task", help="Name of the job: search.index_files."),
    ):
        command = option(command)
    return command


@click.group()
def jobs() -> None:
    """Look at jobs, cancel them, and deal with those that died."""


@jobs.command("list")
@click.option("--state", type=click.Choice([state.value for state in JobState]), multiple=True)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@json_option
def list_jobs(state: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List jobs, the last seen first; a job is kept for a day after its end.

    Example: samplemind jobs list --state running --state retrying
    """
    with SyncJobs() as client:
        found = client.newest(limit=limit, states=map(JobState, state))
    if as_json:
        print_json({"jobs": [status.as_json() for status in found]})
        return
    print_table(
        ("id", "job", "state", "attempts", "since", "worker"),
        ((s.id, s.task, s.state.value, s.attempts, _latest(s), s.worker) for s in found),
    )


@jobs.command()
@click.argument("job_id")
@json_option
def show(job_id: str, as_json: bool) -> None:
    """Show where a job stands.

    Example: samplemind jobs show 0190c6a8-5f0e-7c3a-9d51-0c8f5d1d8a11
    """
    with SyncJobs() as client:
        status = client.status(job_id)
    if as_json:
        print_json(status.as_json())
        return
    print_table(
        ("field", "value"),
        ((name, value) for name, value in status.as_json().items() if value is not None),
    )


@jobs.command()
@click.argument("job_id")
@json_option
def cancel(job_id: str, as_json: bool) -> None:
    """Cancel a job: one that waits never starts, one that runs is told to stop and then made to.

    Example: samplemind jobs cancel 0190c6a8-5f0e-7c3a-9d51-0c8f5d1d8a11
    """
    job_id = str(parse_job_id(job_id))
    with SyncJobs() as client:
        known = is_known(client, job_id)
        state = client.cancel(job_id)
    told = state is JobState.RUNNING
    if as_json:
        print_json({"id": job_id, "state": state.value, "requested": told, "known": known})
    elif not known:
        # Of another service's message, nothing is known until it starts.
        console.print("No such job is known; a message with this id will not run.")
    elif told:
        console.print("It runs and was told to stop; that takes seconds.")
    elif state is JobState.CANCELLED:
        console.print("It is cancelled and will not run.")
    else:
        console.print(f"It had ended already: {state.value}.")


def parse_job_id(text: str) -> UUID:
    """Return the id that an operator typed.

    Raises:
        InvalidInputError: it is none.
    """
    try:
        return UUID(text)
    except ValueError as error:
        message = f"{text!r} is no job's id: `samplemind jobs list` shows them"
        raise InvalidInputError(message) from error


def is_known(client: SyncJobs, job_id: str) -> bool:
    """Return whether the platform keeps the state of a job."""
    try:
        client.status(job_id)
    except NotFoundError:
        return False
    return True


@jobs.command()
@_filters
@click.option(
    "--state",
    type=click.Choice([*(state.value for state in DeadLetterState), "any"]),
    default=DeadLetterState.OPEN.value,
    show_default=True,
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@json_option
def dead(
    task: str | None,
    since: datetime | None,
    text: str | None,
    state: str,
    limit: int,
    as_json: bool,
) -> None:
    """List dead letters: jobs that will not run again by themselves.

    Example: samplemind jobs dead --task search.index_files --since 2h
    """
    chosen = LetterFilter(task, None if state == "any" else DeadLetterState(state), since, text)

    async def work(connections: Connections) -> tuple[list[DeadLetter], int]:
        await dead_letters.collect(connections)
        async with connections.postgres.session() as session:
            repository = DeadLetterRepository(session)
            found = await repository.find(chosen, limit=limit)
            return list(found), await repository.count(chosen)

    letters, total = with_connections(work)
    if as_json:
        print_json({"total": total, "letters": [_as_json(letter) for letter in letters]})
        return
    print_table(
        ("id", "job", "code", "attempts", "times", "last failed", "error"),
        (
            (
                letter.id,
                letter.task,
                letter.code,
                letter.attempts,
                letter.occurrences,
                f"{letter.last_failed_at:%Y-%m-%d %H:%M:%S}",
                letter.error.splitlines()[0][:100] if letter.error else "",
            )
            for letter in letters
        ),
        title=f"{total} dead letters, {len(letters)} shown",
    )


@jobs.command()
@click.argument("letter_id", type=click.UUID, required=False)
@_filters
@click.option("--all", "everything", is_flag=True, help="Every open letter.")
@click.option("--dry-run", is_flag=True, help="Say how many, and send none.")
@json_option
def replay(
    letter_id: UUID | None,
    task: str | None,
    since: datetime | None,
    text: str | None,
    everything: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send dead letters again: one, those that filters take, or --all. Twice sends once.

    Example: samplemind jobs replay --task search.index_files --since 2h
    """
    chosen = _chosen(letter_id, LetterFilter(task=task, since=since, text=text), everything)
    if dry_run:
        _print_count(chosen, as_json)
        return

    async def work(connections: Connections) -> dead_letters.Closing:
        await dead_letters.collect(connections)
        return await dead_letters.replay(connections, chosen, actor=_actor())

    done = with_connections(work)
    if as_json:
        print_json({"replayed": done.changed, "refused": done.refused, "job_ids": done.job_ids})
        return
    console.print(f"{done.changed} sent again, {done.refused} cannot be sent.")


@jobs.command()
@click.argument("job_id", type=click.UUID)
@json_option
def retry(job_id: UUID, as_json: bool) -> None:
    """Send one dead job again, named by its own id or by its letter's.

    Example: samplemind jobs retry 0190c6a8-5f0e-7c3a-9d51-0c8f5d1d8a11
    """

    async def work(connections: Connections) -> dead_letters.Closing:
        await dead_letters.collect(connections)
        async with connections.postgres.session() as session:
            letter_id = await DeadLetterRepository(session).letter_of_job(str(job_id))
        return await dead_letters.replay(connections, letter_id or job_id, actor=_actor())

    done = with_connections(work)
    if as_json:
        print_json({"replayed": done.changed, "refused": done.refused, "job_ids": done.job_ids})
        return
    console.print(f"Sent again as {done.job_ids[0]}.")


@jobs.command()
@click.argument("letter_id", type=click.UUID, required=False)
@_filters
@click.option("--all", "everything", is_flag=True, help="Every open letter.")
@click.option("--reason", required=True, help="Why; it is kept with the letter and audited.")
@click.option("--dry-run", is_flag=True, help="Say how many, and discard none.")
@json_option
def discard(
    letter_id: UUID | None,
    task: str | None,
    since: datetime | None,
    text: str | None,
    everything: bool,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Close dead letters without sending them: one, those that filters take, or --all.

    Example: samplemind jobs discard --text "no such file" --reason "the pack was deleted"
    """
    chosen = _chosen(letter_id, LetterFilter(task=task, since=since, text=text), everything)
    if dry_run:
        _print_count(chosen, as_json)
        return

    async def work(connections: Connections) -> dead_letters.Closing:
        await dead_letters.collect(connections)
        return await dead_letters.discard(connections, chosen, reason=reason, actor=_actor())

    done = with_connections(work)
    if as_json:
        print_json({"discarded": done.changed})
        return
    console.print(f"{done.changed} discarded.")


def _chosen(letter_id: UUID | None, chosen: LetterFilter, everything: bool) -> LetterFilter | UUID:
    ways = (letter_id is not None, chosen != LetterFilter(), everything)
    if sum(ways) != 1:
        message = "name one letter, or filters (--task, --since, --text), or --all"
        raise click.UsageError(message)
    return chosen if letter_id is None else letter_id


def _print_count(chosen: LetterFilter | UUID, as_json: bool) -> None:
    async def work(connections: Connections) -> int:
        await dead_letters.collect(connections)
        async with connections.postgres.session() as session:
            repository = DeadLetterRepository(session)
            if isinstance(chosen, UUID):
                letter = await repository.get(chosen)
                return int(letter is not None and letter.state == DeadLetterState.OPEN.value)
            return await repository.count(chosen)

    total = with_connections(work)
    if as_json:
        print_json({"would_change": total})
        return
    console.print(f"{total} open letters; nothing was changed.")


def _as_json(letter: DeadLetter) -> dict[str, Any]:
    shown = {column.key: getattr(letter, column.key) for column in DeadLetter.__table__.columns}
    return shown | {"message": letter.error}


def _latest(status: JobStatus) -> str:
    moment = status.ended_at or status.started_at or status.enqueued_at
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else ""


def _actor() -> str:
    return f"command line, {getpass.getuser()}"
