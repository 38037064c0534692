"""The `samplemind` command: what operators type.

Each command's module is imported when it is called, so that `--help` and light commands do not
pay for numpy or the database drivers. Exit codes: 0 done, 1 the thing asked for failed, 2 bad
usage or settings.
"""

import importlib
import sys
from typing import Any

import click

from samplemind import __version__
from samplemind.errors import InvalidInputError, SampleMindError, SettingsError
from samplemind.log import configure_logging
from samplemind.settings import LogSettings, load_settings

# command → (module, attribute, one line for --help)
_COMMANDS: dict[str, tuple[str, str, str]] = {
    "up": ("samplemind.cli.stack", "up", "Start what runs the platform; a second `up` finds it."),
    "down": ("samplemind.cli.stack", "down", "Stop what `up` started."),
    "status": ("samplemind.cli.stack", "status", "Each service with address, pid and health."),
    "doctor": ("samplemind.cli.doctor", "doctor", "Check settings, servers, disk and clock."),
    "migrate": ("samplemind.cli.migrate", "migrate", "Bring tables and indexes up to date."),
    "demo": ("samplemind.cli.demo", "demo", "Synthesise a small pack, ingest it, search it."),
    "analyze": ("samplemind.cli.analyze", "analyze", "What the analysis finds; stores nothing."),
    "ingest": ("samplemind.cli.ingest", "ingest", "Submit files as a batch."),
    "batch": ("samplemind.cli.batch", "batch", "Batches and their failed files."),
    "jobs": ("samplemind.cli.jobs", "jobs", "Jobs, and those that died: list, cancel, replay."),
    "search": ("samplemind.cli.search", "search", "Find files by words."),
    "fuzzy": ("samplemind.cli.search", "fuzzy", "Find files by words that may be misspelt."),
    "suggest": ("samplemind.cli.search", "suggest", "Complete what is being typed."),
    "similar": ("samplemind.cli.similar", "similar", "Find files that sound like some."),
    "hybrid": ("samplemind.cli.similar", "hybrid", "Find files by words and by sound."),
    "db": ("samplemind.cli.db", "db", "The database's health, slow queries, upkeep."),
    "retention": ("samplemind.cli.retention", "retention", "What is kept no longer."),
    "schedule": ("samplemind.cli.schedule", "schedule", "What recurs, and how it last went."),
    "backup": ("samplemind.cli.backup", "backup", "Make, verify, restore and prune backups."),
    "cache": ("samplemind.cli.cache", "cache", "The cache: figures, warming, clearing."),
    "index": ("samplemind.cli.index", "index", "The search index: lag and repair."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="samplemind")
def cli() -> None:
    """SampleMind's background job platform.

    Start everything with `samplemind up`, then `samplemind ingest DIR --wait` and
    `samplemind search "dark kick"`. Settings are environment variables: `samplemind doctor`
    lists them.
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line and exit with its code."""
    try:
        configure_logging(LogSettings())
        configure_logging(load_settings().log)
        cli.main(args=arguments, prog_name="samplemind", standalone_mode=True)
    except (SettingsError, InvalidInputError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except SampleMindError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("Interrupted.", err=True)
        sys.exit(130)
