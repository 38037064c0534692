"""`samplemind backup create|verify|restore|drill|pitr`: what reads or writes the stores."""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from samplemind.backup.control import Control, Step
from samplemind.backup.database_backup import DatabaseBackup
from samplemind.backup.manifest import BackupKind
from samplemind.backup.restore import Choice
from samplemind.backup.scratch import RecoveryTarget
from samplemind.backup.verdicts import Verification
from samplemind.backup.verification import Level
from samplemind.cli.output import (
    console,
    error_console,
    json_option,
    print_json,
    print_table,
)
from samplemind.embedded.home import StackHome
from samplemind.errors import InvalidInputError

_KINDS = [kind.value for kind in BackupKind]


@click.command()
@click.option(
    "--kind", type=click.Choice(_KINDS), default=BackupKind.LOGICAL.value, show_default=True
)
@click.option("--reason", default="manual", help="Kept in the manifest.")
@json_option
def create(kind: str, reason: str, as_json: bool) -> None:
    """Back PostgreSQL and MongoDB up at one moment.

    logical: rows by parallel COPY, restored by this program; the default. dump: PostgreSQL as one
    pg_dump archive for stock tools. physical: the whole PostgreSQL server, and the beginning of an
    archive of its WAL for recovery to any later moment. incremental: what changed since the newest
    physical one (PostgreSQL 17 and newer with summarize_wal=on); a full one where that cannot be.

    Example: samplemind backup create --reason "before the upgrade"
    """
    backup = DatabaseBackup()
    began = time.monotonic()
    with _progress(backup) as control:
        made = backup.create_backup(BackupKind(kind), reason=reason, control=control)
    found = {
        "id": made.id,
        "kind": made.kind.value,
        "location": backup.location,
        "size_bytes": made.stored_bytes,
        "source_bytes": made.source_bytes,
        "ratio": made.ratio,
        "seconds": round(time.monotonic() - began, 3),
        "sha256": made.sha256,
        "encrypted": made.encryption is not None,
        "gap_ms": made.gap_ms,
        "parent": made.parent,
        "remarks": made.remarks,
    }
    if as_json:
        print_json(found)
        return
    console.print(
        f"[bold]{made.id}[/bold] in {backup.location}: {_mib(made.stored_bytes)} of "
        f"{_mib(made.source_bytes)} in {found['seconds']} s"
    )
    for remark in made.remarks:
        error_console.print(f"{remark[:1].upper()}{remark[1:]}.", markup=False)
    if made.encryption is None:
        error_console.print("It is not encrypted: set SAMPLEMIND_BACKUP_KEYS to have them so.")


@click.command()
@click.argument("backup_id", required=False)
@click.option(
    "--level",
    type=click.IntRange(0, 3),
    default=1,
    show_default=True,
    help="0 sizes, 1 every byte's checksum, 2 decoded and counted, 3 restored and questioned.",
)
@json_option
def verify(backup_id: str | None, level: int, as_json: bool) -> None:
    """Verify a backup, by default the newest; exits with 1 where it is not good.

    Example: samplemind backup verify --level 3
    """
    backup = DatabaseBackup()
    with _progress(backup) as control:
        found = backup.verify_backup(backup_id, level=Level(level), control=control)
    _print_verification(found, as_json)


@click.command()
@click.argument("backup_id", required=False)
@click.option(
    "--within",
    type=click.FloatRange(0, 3600),
    default=5,
    show_default=True,
    help="Seconds within which the random moment lies.",
)
@click.option("--seed", type=int, help="Choose the same moment again.")
@json_option
def drill(backup_id: str | None, within: float, seed: int | None, as_json: bool) -> None:
    """Recover on scratch servers, compare every row with the source, and measure.

    With a physical backup: recovery to a random moment. Else the newest logical one is restored.

    Example: samplemind backup drill
    """
    backup = DatabaseBackup()
    with _progress(backup) as control:
        found = backup.drill(backup_id, within_s=within, seed=seed, control=control)
    _print_verification(found, as_json)


@click.command()
@click.argument("backup_id", required=False)
@click.option("--into", metavar="DATABASE", help="Another database of the same servers.")
@click.option("--table", "tables", multiple=True, help="Only this table; may be repeated.")
@click.option("--collection", "collections", multiple=True, help="Only this collection; likewise.")
@click.option("--drop", is_flag=True, help="Replace what is there, after a safety backup of it.")
@click.option("--no-safety-backup", is_flag=True, help="Do not back up what --drop drops.")
@click.option(
    "--beside-workers", is_flag=True, help="Although workers run, whose writes are lost meanwhile."
)
@click.option("--defer-indexes", is_flag=True, help="Take traffic before vector indexes are built.")
@click.option("--jobs", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option("--yes", is_flag=True, help="Do not ask before dropping.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@json_option
def restore(
    backup_id: str | None,
    into: str | None,
    tables: tuple[str, ...],
    collections: tuple[str, ...],
    drop: bool,
    no_safety_backup: bool,
    beside_workers: bool,
    defer_indexes: bool,
    jobs: int,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Restore a backup, by default the newest good one, into an empty database.

    With --drop, everything is restored beside what is there and takes its place when it is whole;
    until then nothing is touched. Restoring over the platform's own databases is refused while
    workers run.

    Example: samplemind backup restore --into samplemind_check
    """
    backup = DatabaseBackup()
    choice = Choice(
        tables=tables,
        collections=collections,
        drop=drop,
        defer_graphs=defer_indexes,
        jobs=jobs,
    )
    target = into or backup.database
    if dry_run:
        _print_plan(backup, backup_id, target, choice, as_json)
        return
    if drop and not yes:
        click.confirm(
            f"Drop everything in {target} (PostgreSQL and MongoDB)?", abort=True, err=True
        )
    with _progress(backup) as control:
        report = backup.restore_backup(
            backup_id,
            into=into,
            choice=choice,
            safety_backup=not no_safety_backup,
            beside_workers=beside_workers,
            control=control,
        )
    if not as_json:
        console.print(
            f"[bold]{report.backup_id}[/bold] restored: {report.rows} rows, "
            f"{report.documents} documents; open after {report.open_s} s, all in "
            f"{report.seconds} s"
        )
    for warning in report.warnings:
        error_console.print(warning)
    if report.deferred:
        with _progress(backup) as control:
            backup.build_deferred(into, report.deferred, control)
    if as_json:
        print_json({**dataclasses.asdict(report), "deferred": len(report.deferred)})


_into_option = click.option(
    "--into",
    "directory",
    type=click.Path(path_type=Path),
    help="New data directory; by default one beside the data of the embedded server.",
)
_TO_HELP = 'A time ("2026-11-22 03:14:07+00"), an LSN, or "end".'


@click.group(invoke_without_command=True)
@click.option("--to", help=_TO_HELP)
@_into_option
@json_option
@click.pass_context
def pitr(context: click.Context, to: str | None, directory: Path | None, as_json: bool) -> None:
    """Recover PostgreSQL to a moment, from a physical backup and the archive of its WAL.

    With --to it recovers, as `pitr restore` does.

    Example: samplemind backup pitr --to "2026-11-22 03:14:07+00"
    """
    if context.invoked_subcommand is not None:
        if to is not None or directory is not None or as_json:
            message = f"write the options behind the command: pitr {context.invoked_subcommand} …"
            raise click.UsageError(message, context)
        return
    if to is None:
        message = "say to which moment with --to, or name a command; see --help"
        raise click.UsageError(message, context)
    _recover(to, directory, as_json)


@pitr.command()
@json_option
def status(as_json: bool) -> None:
    """Show what can be recovered, what is missing, and how far the archive is behind.

    Example: samplemind backup pitr status
    """
    backup = DatabaseBackup()
    coverage = backup.coverage()
    lag = backup.archive_lag()
    if as_json:
        print_json(
            {
                "archiving": lag is not None,
                "lag_bytes": None if lag is None else lag.slot_bytes,
                "bases": [dataclasses.asdict(each) for each in coverage],
            }
        )
        return
    if lag is None:
        console.print("No archive: `samplemind backup create --kind physical` begins one.")
    else:
        console.print(f"The archive is {_mib(lag.slot_bytes)} behind.")
    print_table(
        ["base", "from", "until", "missing WAL"],
        (
            (each.backup_id, _moment(each.from_time), _moment(each.to_time), each.missing)
            for each in coverage
        ),
    )


@pitr.command()
@json_option
def archive(as_json: bool) -> None:
    """Bring the WAL up to now into the store, here and now.

    Example: samplemind backup pitr archive
    """
    report = DatabaseBackup().archive_wal()
    if report is None:
        message = "no archive was begun: `samplemind backup create --kind physical` begins one"
        raise InvalidInputError(message)
    lag_bytes = None if report.lag is None else report.lag.slot_bytes
    if as_json:
        print_json({"segments": report.stored, "lag_bytes": lag_bytes})
    else:
        console.print(f"{report.stored} segments stored; {_mib(lag_bytes or 0)} to come.")


@pitr.command("restore")
@click.option("--to", required=True, help=_TO_HELP)
@_into_option
@json_option
def pitr_restore(to: str, directory: Path | None, as_json: bool) -> None:
    """Recover into a new data directory and show what was reached.

    The live server is left alone. MongoDB comes back as of the base backup.

    Example: samplemind backup pitr restore --to "2026-11-22 03:14:07+00" --into /var/lib/recovered
    """
    _recover(to, directory, as_json)


def _recover(to: str, directory: Path | None, as_json: bool) -> None:
    target = parse_target(to)
    backup = DatabaseBackup()
    place = _new_place(backup) if directory is None else directory.absolute()
    began = time.monotonic()
    with (
        _progress(backup) as control,
        backup.recover(target, place, control=control) as recovery,
    ):
        reached = recovery.reached
    found = {
        "id": recovery.backup_id,
        "directory": str(place),
        "target": str(target),
        "reached_lsn": reached.lsn,
        "reached_commit": None if reached.last_commit is None else reached.last_commit.isoformat(),
        "timeline": reached.timeline,
        "segments": recovery.segments,
        "seconds": round(time.monotonic() - began, 3),
    }
    if as_json:
        print_json(found)
        return
    console.print("  ".join(f"{name} [bold]{value}[/bold]" for name, value in found.items()))
    console.print(f"Start it as its owner: pg_ctl -D {place} start")


def _new_place(backup: DatabaseBackup) -> Path:
    # Where the server's account has got in already: the data may lie behind a link.
    data = StackHome(backup.settings.home).data / "postgres"
    return data.resolve().parent / f"recovered-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def parse_target(text: str) -> RecoveryTarget:
    """Read where recovery shall end.

    Raises:
        InvalidInputError: it is no time with its offset, no LSN and not `end`.
    """
    if text == "end":
        return RecoveryTarget()
    high, slash, low = text.partition("/")
    if slash:
        try:
            int(high, 16), int(low, 16)
        except ValueError:
            message = f"{text!r} is no LSN: write for example 0/16B3748"
            raise InvalidInputError(message) from None
        return RecoveryTarget(lsn=text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        message = f'{text!r} is no time: write for example "2026-11-22 03:14:07+00"'
        raise InvalidInputError(message) from None
    if moment.tzinfo is None:
        message = f"{text!r} has no offset from UTC: write for example {text}+00"
        raise InvalidInputError(message)
    return RecoveryTarget(moment=moment.astimezone(UTC))


def _print_verification(found: Verification, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        word = "[green]good[/green]" if found.ok else "[red]not good[/red]"
        console.print(f"[bold]{found.id}[/bold] at level {found.level}: {word}, {found.seconds} s")
        for problem in found.problems:
            console.print(f"  {problem}", markup=False)
        for name, value in found.evidence.items():
            if not isinstance(value, dict):
                console.print(f"  {name}: {value}", markup=False)
    if not found.ok:
        raise click.exceptions.Exit(1)


def _print_plan(
    backup: DatabaseBackup, backup_id: str | None, target: str, choice: Choice, as_json: bool
) -> None:
    manifest = backup.restorable(backup_id)
    tables = manifest.postgres.tables if manifest.postgres else ()
    plan = {
        "id": manifest.id,
        "into": target,
        "drop": choice.drop,
        "tables": list(choice.tables) or len(tables),
        "rows": sum(table.rows for table in tables),
        "download_bytes": manifest.stored_bytes,
    }
    if as_json:
        print_json(plan)
    else:
        console.print("  ".join(f"{name} [bold]{value}[/bold]" for name, value in plan.items()))


@contextmanager
def _progress(backup: DatabaseBackup) -> Iterator[Control]:
    """Show a bar for each phase, in bytes, and hand out the job's control."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=error_console,
        transient=True,
        disable=not error_console.is_terminal,
    )
    with bar:
        task = bar.add_task("begin", total=None)

        def tell(step: Step) -> None:
            bar.update(task, description=step.phase, completed=step.done, total=step.total)

        control = backup.control(tell=tell)
        try:
            yield control
        except KeyboardInterrupt:
            control.cancel()
            raise


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
