"""What the code offers to whoever deploys it: commands, roles, variables, paths of health.

Shared by the tests of the Compose file and of the Kubernetes manifests.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from click.testing import CliRunner
from cryptography.fernet import Fernet
from flower.urls import handlers

from samplemind.cli.main import cli
from samplemind.secret_files import SUFFIX
from samplemind.settings import Settings, load_settings, variable_names
from worker.roles import ROLES

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"


def role_of(command: Sequence[str]) -> str | None:
    """Return the role that a command starts; none where it is one of the command line's."""
    return command[3] if list(command[:3]) == ["python", "-m", "worker.main"] else None


def assert_exists(command: Sequence[str]) -> None:
    """Fail unless the command starts a role, or is one of `samplemind` with options that it has."""
    if command[0] != "samplemind":
        assert role_of(command) in ROLES
        return
    shown = CliRunner().invoke(cli, [command[1], "--help"])
    assert shown.exit_code == 0, shown.output
    for option in command[2:]:
        assert not option.startswith("-") or option in shown.output, option


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Return which of the variables are no settings, nor name the file of one."""
    known = variable_names()
    ours = [name for name in names if name.startswith("SAMPLEMIND_")]
    return [name for name in ours if name not in known and name.removesuffix(SUFFIX) not in known]


def settings_under(patch, variables: Mapping[str, str], files: Mapping[str, Path]) -> Settings:
    """Return the settings that a process has with these variables.

    Args:
        patch: pytest's monkeypatch.
        variables: as the process gets them.
        files: where each mounted folder of the process lies here.
    """
    for name, value in variables.items():
        folder, _, file = value.rpartition("/")
        patch.setenv(name, str(files[folder] / file) if folder in files else value)
    return load_settings()


def assert_whole(settings: Settings) -> None:
    """Fail unless every store has a URL and the key of what is encrypted is one."""
    assert settings.embedded_stores() == ()
    assert settings.security.encryption_key is not None
    Fernet(settings.security.encryption_key.get_secret_value())


def make_secrets(folder: Path) -> str:
    """Run the script as an operator does; return what it printed."""
    return subprocess.run(
        [sys.executable, DEPLOY / "make-secrets", folder],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def make_secrets_for_compose(place: Path) -> Path:
    """Run a copy of the script, which makes the secrets beside itself; return their folder."""
    shutil.copy(DEPLOY / "make-secrets", place)
    subprocess.run([sys.executable, place / "make-secrets"], check=True, capture_output=True)
    return place / "secrets"


def console_serves(path: str) -> bool:
    """Tell whether the console answers at this path, other than that there is nothing."""
    patterns = [getattr(handler, "regex", None) or re.compile(handler[0]) for handler in handlers]
    return any(each.fullmatch(path) for each in patterns if not each.fullmatch("/no such page"))
