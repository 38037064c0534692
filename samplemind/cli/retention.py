"""`samplemind retention`: what is kept no longer, and what must be kept."""

from dataclasses import asdict
from typing import Any
from uuid import UUID

import click

from samplemind.cli.output import console, json_option, print_json, print_table
from samplemind.cli.progress import progress_bar
from samplemind.cli.session import with_connections
from samplemind.connections.resources import Connections
from samplemind.errors import NotFoundError
from samplemind.maintenance.retention import RetentionReport
from samplemind.maintenance.retention_run import run_retention
from samplemind.models.legal_hold import LegalHold
from samplemind.repositories.legal_holds import LegalHoldRepository
from samplemind.repositories.users import UserRepository


@click.group()
def retention() -> None:
    """What is kept no longer, and what must be kept.

    Example: samplemind retention run --dry-run
    """


@retention.command()
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@click.option("--policy", "only", multiple=True, help="Only this policy; may be repeated.")
@json_option
def run(dry_run: bool, only: tuple[str, ...], as_json: bool) -> None:
    """Take away what its policy keeps no longer; audit entries are archived first.

    Backups have a policy of their own: `samplemind backup prune`.

    Example: samplemind retention run --dry-run
    """
    with progress_bar() as bar:
        task = bar.add_task("rows", total=None)

        async def work(connections: Connections) -> RetentionReport:
            return await run_retention(
                connections,
                dry_run=dry_run,
                only=only,
                progress=lambda name, count: bar.update(task, advance=count, description=name),
            )

        found = with_connections(work)
    if as_json:
        print_json(asdict(found))
        return
    if found.skipped:
        console.print(f"Nothing was done: {found.skipped}")
        return
    done = {each.policy: each for each in found.done}
    print_table(
        ["policy", "before", "rows", "MiB", "oldest", "newest", "held", "deleted"],
        (
            (
                plan.policy,
                f"{plan.cutoff:%Y-%m-%d}",
                plan.rows,
                f"{plan.size_bytes / 2**20:.2f}",
                f"{plan.oldest:%Y-%m-%d}" if plan.oldest else None,
                f"{plan.newest:%Y-%m-%d}" if plan.newest else None,
                plan.held_rows,
                done[plan.policy].deleted if plan.policy in done else None,
            )
            for plan in found.plans
        ),
    )


@retention.command()
@click.option("--user", help="E-mail address of a user whose things are held.")
@click.option("--tag", help="Tag of the files that are held, with all that was made of them.")
@click.option("--reason", required=True, help="Why, for those who ask later.")
@json_option
def hold(user: str | None, tag: str | None, reason: str, as_json: bool) -> None:
    """Place a legal hold: nothing that it names goes until it is released.

    Example: samplemind retention hold --user ada@example.org --reason "case 12/2026"
    """

    async def work(connections: Connections) -> LegalHold:
        async with connections.postgres.session() as session:
            user_id = None
            if user is not None:
                found = await UserRepository(session).get_by_email(user)
                if found is None:
                    message = f"there is no user {user}"
                    raise NotFoundError(message)
                user_id = found.id
            return await LegalHoldRepository(session).place(user_id=user_id, tag=tag, reason=reason)

    _print_holds([with_connections(work)], as_json)


@retention.command()
@click.argument("hold_id", type=click.UUID)
@json_option
def release(hold_id: UUID, as_json: bool) -> None:
    """Release a legal hold.

    Example: samplemind retention release 01a204c5-6a36-7282-9daa-2cfe75a65222
    """

    async def work(connections: Connections) -> None:
        async with connections.postgres.session() as session:
            await LegalHoldRepository(session).release(hold_id)

    with_connections(work)
    if as_json:
        print_json({"released": hold_id})
    else:
        console.print(f"Released {hold_id}")


@retention.command()
@json_option
def holds(as_json: bool) -> None:
    """List the legal holds that count.

    Example: samplemind retention holds
    """

    async def work(connections: Connections) -> list[LegalHold]:
        async with connections.postgres.session() as session:
            return list(await LegalHoldRepository(session).active())

    _print_holds(with_connections(work), as_json)


def _print_holds(found: list[LegalHold], as_json: bool) -> None:
    listed: list[dict[str, Any]] = [
        {
            "id": each.id,
            "user_id": each.user_id,
            "tag": each.tag,
            "reason": each.reason,
            "created_at": each.created_at,
        }
        for each in found
    ]
    if as_json:
        print_json({"holds": listed})
    else:
        print_table(
            ["id", "user", "tag", "reason", "since"], (tuple(each.values()) for each in listed)
        )
