"""The files for Docker, held against the code: no engine is needed to see that they fit it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cryptography.fernet import Fernet

from samplemind.cli.main import cli
from samplemind.secret_files import SUFFIX
from samplemind.settings import Settings, load_settings, variable_names
from worker.roles import ROLES

_ROOT = Path(__file__).parents[3]
_COMPOSE = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())
_SERVICES: dict[str, dict] = _COMPOSE["services"]
_OURS = {name: each for name, each in _SERVICES.items() if "build" in each}
_DOCKERFILE = (_ROOT / "deploy" / "Dockerfile").read_text()


@pytest.fixture
def made_secrets(tmp_path) -> Path:
    """The folder of secrets, as the script makes it beside itself."""
    script = tmp_path / "make-secrets"
    shutil.copy(_ROOT / "deploy" / "make-secrets", script)
    subprocess.run([sys.executable, script], check=True, capture_output=True)
    return tmp_path / "secrets"


def test_the_compose_file_follows_the_compose_specification():
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"),
            _ROOT / "docker-compose.yml",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", sorted(_OURS))
def test_a_services_command_exists(name):
    command = _OURS[name]["command"]
    if command[0] == "samplemind":
        assert command[1] in cli.list_commands(None)  # type: ignore[arg-type]
    else:
        assert command[:3] == ["python", "-m", "worker.main"]
        assert command[3] in ROLES


def test_every_role_has_a_service():
    run = {each["command"][3] for each in _OURS.values() if each["command"][0] == "python"}
    assert run == set(ROLES)


@pytest.mark.parametrize("name", sorted(_OURS))
def test_a_services_variables_are_settings(name):
    known = variable_names()
    for variable in _OURS[name]["environment"]:
        assert variable in known or variable.removesuffix(SUFFIX) in known


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_a_service_mounts_the_secrets_that_it_reads(name):
    service = _SERVICES[name]
    read = set(re.findall(r"/run/secrets/(\w+)", str(service)))
    assert read <= set(service.get("secrets", ()))


def test_the_script_makes_every_secret_once(made_secrets):
    named = {Path(each["file"]).name for each in _COMPOSE["secrets"].values()}
    made = {path.name: path.read_text() for path in made_secrets.iterdir()}
    assert set(made) == named
    subprocess.run(
        [sys.executable, made_secrets.parent / "make-secrets"], check=True, capture_output=True
    )
    assert {path.name: path.read_text() for path in made_secrets.iterdir()} == made
    assert made_secrets.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", sorted(_OURS))
def test_a_services_settings_are_whole(monkeypatch, made_secrets, name):
    for variable, value in _OURS[name]["environment"].items():
        monkeypatch.setenv(variable, value.replace("/run/secrets", str(made_secrets)))
    settings = load_settings()
    assert settings.embedded_stores() == ()
    assert settings.security.encryption_key is not None
    Fernet(settings.security.encryption_key.get_secret_value())


def test_hosts_in_the_urls_are_services(made_secrets):
    for path in made_secrets.glob("*_url"):
        host = re.search(r"@([\w-]+):\d+", path.read_text())
        assert host is not None
        assert host[1] in _SERVICES


def test_only_the_console_is_published():
    assert [name for name, each in _SERVICES.items() if "ports" in each] == ["console"]
    assert _COMPOSE["networks"]["platform"]["internal"] is True


def test_a_worker_is_given_longer_than_its_drain():
    drain_s = Settings.model_fields["worker"].default.drain_s
    for name, service in _OURS.items():
        assert int(service["stop_grace_period"].removesuffix("s")) >= 2 * drain_s, name


@pytest.mark.parametrize("role", [role for role in ROLES.values() if role.queues])
def test_a_worker_is_asked_for_its_own_health(role):
    [service] = [each for each in _OURS.values() if each["command"][-1] == role.name]
    (asked,) = re.findall(r"health-(\w+)@", str(service["healthcheck"]["test"]))
    assert asked == role.name
    assert "python -m worker.health" in str(service["healthcheck"]["test"])


def test_two_beats_run():
    assert _SERVICES["beat"]["deploy"]["replicas"] == 2


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_no_service_may_take_all_of_the_machine(name):
    limits = _SERVICES[name]["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory"}


@pytest.mark.parametrize("name", sorted(_OURS))
def test_our_processes_may_do_little(name):
    service = _OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


def test_volumes_that_services_mount_are_declared():
    mounted = {
        volume.split(":")[0]
        for service in _SERVICES.values()
        for volume in service.get("volumes", ())
        if re.match(r"[a-z-]+:", volume)
    }
    assert mounted == set(_COMPOSE["volumes"])


def test_the_image_is_built_from_what_is_there_and_runs_as_nobody_special():
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", _DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            assert (_ROOT / source).exists(), source
    for package in ("samplemind", "worker", "tasks", "schedules", "migrations"):
        assert re.search(rf"^COPY {package} ", _DOCKERFILE, re.MULTILINE)
    assert re.search(r"^USER [1-9]\d*", _DOCKERFILE, re.MULTILINE)


def test_the_servers_that_come_as_wheels_stay_out_of_the_image():
    lock = (_ROOT / "requirements-runtime.lock").read_text()
    left_out = re.search(r"/\^\(([^)]+)\)==/", _DOCKERFILE)
    assert left_out is not None
    for name in left_out[1].split("|"):
        assert re.search(rf"^{name}==", lock, re.MULTILINE), name
