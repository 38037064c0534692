"""`samplemind schedule`: what recurs, how it last went, and running it now."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import click

from samplemind.cli.output import console, json_option, print_json, print_table
from samplemind.cli.session import with_connections
from samplemind.connections.resources import Connections
from samplemind.errors import TransientError
from samplemind.jobs.manual import find_periodic, manual_slot, run_now
from samplemind.maintenance.watchdog import ScheduleStanding, schedule_standing
from samplemind.maintenance.watchdog import as_json as standing_as_json
from samplemind.repositories.periodic_runs import PeriodicRunRepository, RunOutcome

_POLL_S = 0.2


@click.group()
def schedule() -> None:
    """What recurs, how it last went, and running it now.

    Example: samplemind schedule list
    """


@schedule.command(name="list")
@json_option
def list_jobs(as_json: bool) -> None:
    """Each periodic job: last run, duration, outcome, next run.

    Example: samplemind schedule list
    """

    async def work(connections: Connections) -> ScheduleStanding:
        return await schedule_standing(connections, datetime.now(UTC))

    found = with_connections(work)
    if as_json:
        print_json(standing_as_json(found))
        return
    print_table(
        ["job", "when (UTC)", "standing", "last run", "seconds", "outcome", "next run"],
        (
            (
                job.name,
                job.when,
                job.standing.value.replace("_", " "),
                f"{job.last_started_at:%m-%d %H:%M:%S}" if job.last_started_at else None,
                f"{job.last_seconds:.2f}" if job.last_seconds is not None else None,
                job.last_outcome,
                f"{job.next_at:%m-%d %H:%M:%S}",
            )
            for job in found.jobs
        ),
    )
    console.print(found.summary(), markup=False)


@schedule.command()
@click.argument("name")
@click.option("--no-wait", is_flag=True, help="Send it and return.")
@click.option("--timeout", type=click.FloatRange(min=1), default=3600.0, help="Seconds to wait.")
@json_option
@click.pass_context
def run(context: click.Context, name: str, no_wait: bool, timeout: float, as_json: bool) -> None:
    """Run a periodic job now, beside its schedule; exit 1 if it fails.

    Example: samplemind schedule run maintenance.vacuum
    """
    job_id = str(uuid4())

    async def work(connections: Connections) -> dict[str, Any]:
        await run_now(connections, await find_periodic(connections, name), job_id)
        if no_wait:
            return {"name": name, "job_id": job_id, "outcome": "sent"}
        return await _await_end(connections, name, job_id, timeout)

    found = with_connections(work)
    if as_json:
        print_json(found)
    else:
        console.print(
            "  ".join(f"{key} {value}" for key, value in found.items() if value is not None),
            markup=False,
        )
    context.exit(1 if found["outcome"] == RunOutcome.FAILED.value else 0)


async def _await_end(
    connections: Connections, name: str, job_id: str, timeout_s: float
) -> dict[str, Any]:
    ends = time.monotonic() + timeout_s
    while time.monotonic() < ends:
        async with connections.postgres.session() as session:
            found = await PeriodicRunRepository(session).find_by_slot(name, manual_slot(job_id))
        if found is not None and found.outcome in (RunOutcome.SUCCEEDED, RunOutcome.FAILED):
            return {
                "name": name,
                "job_id": job_id,
                "outcome": found.outcome,
                "seconds": found.seconds,
                "figures": found.figures,
                "error": found.error,
            }
        await asyncio.sleep(_POLL_S)
    message = f"{name} has not ended within {timeout_s:.0f} s; it goes on (job {job_id})"
    raise TransientError(message)
