"""Every example that a command's help shows is one that the command takes."""

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from samplemind.cli.main import cli

_EXAMPLE = re.compile(r"Example:((?:.|\n )+)")


def examples(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from examples(below, (*path, name))
    for found in _EXAMPLE.finditer(command.help or ""):
        # What stands for the reader's own: an id that is cut short, a folder.
        example = re.sub(r"\S+…", "0197c3a2-0000-7000-8000-000000000000", found[1])
        yield " ".join(example.replace("~/samples", "/").split())


@pytest.mark.parametrize("example", sorted(set(examples(cli))))
def test_a_command_takes_its_own_example(example: str) -> None:
    _, *arguments = shlex.split(example)
    command: click.Command = cli
    parent: click.Context | None = None
    while isinstance(command, click.Group) and not _takes_options(command, arguments):
        parent = click.Context(command, parent=parent)
        found = command.get_command(parent, arguments.pop(0))
        assert found is not None
        command = found

    # Parsed and not run; what is wrong raises.
    command.make_context(command.name, arguments, parent=parent)


def _takes_options(group: click.Group, arguments: list[str]) -> bool:
    return group.invoke_without_command and arguments[0].startswith("-")


def test_there_are_examples() -> None:
    assert sum(1 for _ in examples(cli)) > 30
