"""Progress bars, on stderr and only where it is a terminal."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from samplemind.cli.output import error_console

_T = TypeVar("_T")


def progress_bar() -> Progress:
    """Return a bar that shows count, elapsed and remaining time, and vanishes when it is done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=error_console,
        transient=True,
        disable=not error_console.is_terminal,
    )


def track(items: Sequence[_T], description: str) -> Iterator[_T]:
    """Yield the items while a bar shows how many are done."""
    with progress_bar() as bar:
        yield from bar.track(items, description=description)
