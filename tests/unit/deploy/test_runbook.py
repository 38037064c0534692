"""The commands that documents tell an operator to type exist, with the options that they have."""

import re
import shlex

import click
import pytest

from samplemind.cli.main import cli
from samplemind.settings import variable_names
from tests.unit.deploy.offered import ROOT, unknown_variables

_PAGES = ("docs/runbook.md", "docs/scaling.md", "deploy/kubernetes/README.md", "README.md")


def _typed(page: str) -> list[list[str]]:
    """Return the words of every command of ours in a page, without what a comment says."""
    text = (ROOT / page).read_text()
    lines = re.findall(r"^\$ (.+)$", text, re.MULTILINE)
    quoted = re.findall(r"`(samplemind [^`]+)`", text)
    parts = [part.strip() for line in [*lines, *quoted] for part in line.split(";")]
    words = [shlex.split(part, comments=True) for part in parts if part.startswith("samplemind ")]
    return [each[1:] for each in words]


def _unknown(words: list[str]) -> str | None:
    command: click.Command = cli
    rest = list(words)
    while rest and isinstance(command, click.Group) and not rest[0].startswith("-"):
        context = click.Context(command)
        found = command.get_command(context, rest[0])
        if found is None:
            return rest[0]
        command = found
        rest.pop(0)
    options = {name for each in command.get_params(click.Context(command)) for name in each.opts}
    named = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
    return next(iter(sorted(named - options)), None)


@pytest.mark.parametrize("page", _PAGES)
def test_commands_exist(page):
    typed = _typed(page)
    assert typed
    assert [(words, wrong) for words in typed if (wrong := _unknown(words))] == []


def test_a_command_that_does_not_exist_would_be_found():
    assert _unknown(["backup", "restore", "--into", "x"]) is None
    assert _unknown(["backup", "undo"]) == "undo"
    assert _unknown(["backup", "restore", "--quickly"]) == "--quickly"


@pytest.mark.parametrize("page", _PAGES)
def test_variables_are_settings(page):
    named = set(re.findall(r"`(SAMPLEMIND_[A-Z_]+[A-Z])`", (ROOT / page).read_text()))
    assert unknown_variables(named) == []
    assert "SAMPLEMIND_HOME" in variable_names()
