"""How commands print: a readable table on a terminal, one JSON object with `--json`.

Invariant: results go to stdout and everything else to stderr, so a pipe reads results only.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_Command = TypeVar("_Command", bound=Callable[..., Any])

_COPIED = ("id", "batch", "address")

# A pipe has no width, and a wrapped line cannot be searched.
_PIPE_WIDTH = 240

# A file's name may hold what a terminal obeys, such as an escape sequence.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
error_console = Console(stderr=True, highlight=False)


def json_option(command: _Command) -> _Command:
    """Add `--json`, passed to the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")(
        command
    )


def print_json(value: object) -> None:
    """Print one JSON object; ids, times and paths as text."""
    click.echo(json.dumps(value, default=str, ensure_ascii=False, allow_nan=False))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None
) -> None:
    """Print rows under bold heads; text is taken as it is, never as markup."""
    table = Table(title=title, box=None, pad_edge=False, title_justify="left")
    for column in columns:
        # What people copy from the terminal must be whole; the rest may wrap.
        table.add_column(column, no_wrap=column in _COPIED)
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    console.print(table)


def _plain(cell: object) -> str:
    return "" if cell is None else escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(cell)))
