"""The files for Docker, held against the code: no engine is needed to see that they fit it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from samplemind.settings import Settings, StorageKind
from tests.object_stores import RcloneServer
from tests.unit.deploy.offered import (
    ROOT,
    assert_exists,
    assert_whole,
    console_serves,
    make_secrets_for_compose,
    role_of,
    settings_under,
    unknown_variables,
)
from worker.roles import ROLES

_COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
_SERVICES: dict[str, dict] = _COMPOSE["services"]
_OURS = {name: each for name, each in _SERVICES.items() if "build" in each}
_BACKED_UP_BY = ("worker-index", "worker-maintenance", "console")


@pytest.fixture
def made_secrets(tmp_path) -> Path:
    """The folder of secrets, as the script makes it beside itself."""
    return make_secrets_for_compose(tmp_path)


def test_the_compose_file_follows_the_compose_specification():
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"),
            ROOT / "docker-compose.yml",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", sorted(_OURS))
def test_a_services_command_exists(name):
    assert_exists(_OURS[name]["command"])


def test_every_role_has_a_service():
    assert {role_of(each["command"]) for each in _OURS.values()} - {None} == set(ROLES)


@pytest.mark.parametrize("name", sorted(_OURS))
def test_a_services_variables_are_settings(name):
    assert unknown_variables(_OURS[name]["environment"]) == []


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_a_service_mounts_the_secrets_that_it_reads(name):
    service = _SERVICES[name]
    read = set(re.findall(r"/run/secrets/(\w+)", str(service)))
    assert read <= set(service.get("secrets", ()))


def test_the_script_makes_every_secret_once(made_secrets):
    named = {Path(each["file"]).name for each in _COMPOSE["secrets"].values()}
    made = {path.name: path.read_text() for path in made_secrets.iterdir()}
    assert set(made) == named | {"broker_address"}  # which KEDA asks for
    subprocess.run(
        [sys.executable, made_secrets.parent / "make-secrets"], check=True, capture_output=True
    )
    assert {path.name: path.read_text() for path in made_secrets.iterdir()} == made
    assert made_secrets.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", sorted(_OURS))
def test_a_services_settings_are_whole(monkeypatch, made_secrets, name):
    files = {"/run/secrets": made_secrets}
    settings = settings_under(monkeypatch, _OURS[name]["environment"], files)
    assert_whole(settings)
    assert (settings.storage.kind is StorageKind.S3) == (name in _BACKED_UP_BY)
    assert bool(settings.backup.keys) == (name in _BACKED_UP_BY)


def test_backups_go_to_the_bucket_that_is_made_first(tmp_path, made_secrets):
    for name in _BACKED_UP_BY:
        needed = {each: wait["condition"] for each, wait in _OURS[name]["depends_on"].items()}
        assert needed["bucket"] == "service_completed_successfully"
    variables = _OURS["worker-maintenance"]["environment"]
    server = RcloneServer(tmp_path / "store", auth_key=(made_secrets / "s3_auth_key").read_text())
    server.start()
    try:
        bucket = _SERVICES["bucket"]
        shell, option, script = bucket["entrypoint"]
        script = script.replace("$$", "$").replace("/run/secrets", str(made_secrets))
        environment = {
            **bucket["environment"],
            "RCLONE_S3_ENDPOINT": f"http://127.0.0.1:{server.port}",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        for _ in range(2):  # a second start finds it
            subprocess.run([shell, option, script], env=environment, check=True)
    finally:
        server.stop()
    assert (tmp_path / "store" / variables["SAMPLEMIND_STORAGE_BUCKET"]).is_dir()
    assert bucket["environment"]["RCLONE_S3_ENDPOINT"] == variables["SAMPLEMIND_STORAGE_ENDPOINT"]


def test_hosts_in_the_urls_are_services(made_secrets):
    for path in made_secrets.glob("*_url"):
        host = re.search(r"@([\w-]+):\d+", path.read_text())
        assert host is not None
        assert host[1] in _SERVICES


def test_only_the_console_is_published():
    assert [name for name, each in _SERVICES.items() if "ports" in each] == ["console"]
    assert _COMPOSE["networks"]["platform"]["internal"] is True
    environment = _SERVICES["console"]["environment"]
    assert _SERVICES["console"]["ports"][0].endswith(f":{environment['SAMPLEMIND_CONSOLE_PORT']}")


def test_a_worker_is_given_longer_than_its_drain():
    drain_s = Settings.model_fields["worker"].default.drain_s
    for name, service in _OURS.items():
        assert int(service["stop_grace_period"].removesuffix("s")) >= 2 * drain_s, name


@pytest.mark.parametrize("role", sorted(set(ROLES) - {"console"}))
def test_a_process_is_asked_for_its_own_health(role):
    [service] = [each for each in _OURS.values() if role_of(each["command"]) == role]
    (asked,) = re.findall(r"health-(\w+)@", str(service["healthcheck"]["test"]))
    assert asked == role
    assert "python -m worker.health" in str(service["healthcheck"]["test"])


def test_the_console_is_asked_where_it_answers():
    test = str(_SERVICES["console"]["healthcheck"]["test"])
    [(port, path)] = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", test)
    assert port == _SERVICES["console"]["environment"]["SAMPLEMIND_CONSOLE_PORT"]
    assert console_serves(path)


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_a_service_that_stays_is_watched_and_started_again(name):
    service = _SERVICES[name]
    once = any(
        each.get("depends_on", {}).get(name, {}).get("condition")
        == "service_completed_successfully"
        for each in _SERVICES.values()
    )
    assert ("healthcheck" in service) != once
    assert service["restart"] == ("on-failure:5" if once else "unless-stopped")


def test_whoever_waits_for_a_healthy_service_waits_for_one_that_is_asked():
    for name, service in _SERVICES.items():
        for needed, wait in service.get("depends_on", {}).items():
            assert needed in _SERVICES, name
            asked = "healthcheck" in _SERVICES[needed]
            assert asked == (wait["condition"] == "service_healthy"), (name, needed)


def test_as_many_processes_analyse_as_the_limit_has_cpus():
    service = _SERVICES["worker-audio"]
    processes = service["environment"]["SAMPLEMIND_WORKER_AUDIO_CONCURRENCY"]
    assert processes == service["deploy"]["resources"]["limits"]["cpus"]


def test_two_beats_run():
    assert _SERVICES["beat"]["deploy"]["replicas"] == 2


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_no_service_may_take_all_of_the_machine(name):
    limits = _SERVICES[name]["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory"}


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_no_process_may_do_much(name):
    service = _SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    # A store's entry hands its data to the store's account; nothing of ours may.
    handing = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
    assert set(service.get("cap_add", ())) <= (set() if name in _OURS else handing)


def test_volumes_that_services_mount_are_declared():
    mounted = {
        volume.split(":")[0]
        for service in _SERVICES.values()
        for volume in service.get("volumes", ())
        if re.match(r"[a-z-]+:", volume)
    }
    assert mounted == set(_COMPOSE["volumes"])
