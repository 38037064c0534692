"""The Dockerfile, read as an engine would: there is none where the tests run."""

import re
import subprocess

import pytest

from samplemind.embedded.binaries import _WHEELS
from samplemind.endpoints import Store
from tests.unit.deploy.offered import DEPLOY, ROOT

_TEXT = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text())
_ARGUMENTS = dict(re.findall(r"^ARG (\w+)=(\S+)$", _TEXT, re.MULTILINE))
_STAGES = {
    name: (base, body)
    for base, name, body in re.findall(
        r"^FROM (\S+) AS (\w+)\n(.*?)(?=^FROM |\Z)", _TEXT, re.MULTILINE | re.DOTALL
    )
}


def _line_of(stage: str) -> list[str]:
    """Return a stage and those that it stands on."""
    base, _ = _STAGES[stage]
    return [stage, *(_line_of(base) if base in _STAGES else [])]


def test_every_base_is_named_by_version_and_may_be_pinned_by_digest():
    outside = {base for base, _ in _STAGES.values()} - _STAGES.keys()
    assert outside == {f"${{{name}}}" for name in _ARGUMENTS}
    for name in _ARGUMENTS.values():
        assert re.fullmatch(r"[a-z/]+:\d+(\.\d+)*-[a-z-]+", name), name
    assert len(re.findall("^FROM ", _TEXT, re.MULTILINE)) == len(_STAGES)


def test_what_is_copied_is_there():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", _TEXT, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored
    for stage in re.findall(r"^COPY --from=(\w+)", _TEXT, re.MULTILINE):
        assert stage in _STAGES
    for package in ("samplemind", "worker", "tasks", "schedules", "migrations"):
        assert re.search(rf"^COPY {package} ", _STAGES["build"][1], re.MULTILINE)


@pytest.mark.parametrize("stage", ["platform", "proving"])
def test_an_image_runs_as_nobody_special_and_without_what_built_it(stage):
    users = [
        user
        for each in reversed(_line_of(stage))
        for user in re.findall(r"^USER (\S+)$", _STAGES[each][1], re.MULTILINE)
    ]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])
    assert "build" not in _line_of(stage)
    for each in _line_of(stage):
        body = _STAGES[each][1]
        assert "pip install" not in body
        assert body.count("apt-get install") == body.count("rm -rf /var/lib/apt/lists/*")
        assert body.count("apt-get install") == body.count("--no-install-recommends")


def test_the_small_image_is_what_is_built_where_no_target_is_named():
    assert list(_STAGES)[-1] == "platform"
    assert "servers" not in str([_STAGES[each][1] for each in _line_of("platform")])


def _locked_by(stage: str) -> set[str]:
    """Return the packages that a stage's awk leaves of the lock."""
    program = re.search(r"awk '([^']+)'", _STAGES[stage][1])
    assert program is not None
    left = subprocess.run(
        ["awk", program[1], ROOT / "requirements-runtime.lock"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return set(re.findall(r"^([\w-]+)==", left, re.MULTILINE))


def test_the_servers_that_come_as_wheels_are_in_the_proving_image_alone():
    everything = set(
        re.findall(r"^([\w-]+)==", (ROOT / "requirements-runtime.lock").read_text(), re.MULTILINE)
    )
    assert _locked_by("build") == everything - {wheel for wheel, *_ in _WHEELS.values()}
    # Backups are restored into these two; a queue is in no backup.
    restored = {_WHEELS[store][0] for store in (Store.POSTGRES, Store.MONGO)}
    assert _locked_by("servers") == restored
    assert "COPY --from=servers" in _STAGES["proving"][1]
