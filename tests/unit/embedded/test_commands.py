import json

import pytest
from click.testing import CliRunner

from samplemind.cli.main import cli


@pytest.mark.parametrize("command", ["up", "down", "status", "doctor", "migrate"])
def test_every_command_shows_an_example_and_takes_json(command):
    shown = CliRunner().invoke(cli, [command, "--help"]).output
    assert f"Example: samplemind {command}" in shown
    assert "--json" in shown


def test_a_down_with_nothing_running_says_so_as_an_object(tmp_path):
    environment = {"SAMPLEMIND_HOME": str(tmp_path / "home")}
    done = CliRunner().invoke(cli, ["down", "--json"], env=environment)
    assert json.loads(done.stdout) == {"stopped": True, "was_running": False}
