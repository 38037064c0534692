"""What a process that was killed has left in the temporary directory, decrypted, does not stay."""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from samplemind.backup import workspace as workspaces
from samplemind.backup.workspace import remove_abandoned, spool, workspace
from samplemind.embedded.home import StackHome
from samplemind.errors import BackupError

_WORKER = """
import sys
from pathlib import Path
from samplemind.backup.workspace import workspace
with workspace("trial") as path:
    (path / "plain").write_text("a password hash")
    print(path, flush=True)
    sys.stdin.read()
"""
_SCRATCH = """
import sys
from samplemind.backup.scratch import scratch_servers
from samplemind.endpoints import Store
with scratch_servers([Store.POSTGRES]) as urls:
    print(urls[Store.POSTGRES].get_secret_value(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tmp_path.chmod(0o711)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path / f"samplemind-work-{os.geteuid()}"


def start(script: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.fixture
def working(place: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    process, path = start(_WORKER)
    yield process, Path(path)
    end(process)


def test_what_a_killed_process_left_goes_with_the_next_workspace(
    place: Path, working: tuple[subprocess.Popen[str], Path]
) -> None:
    process, left = working
    assert left.parent == place
    assert stat.S_IMODE(left.stat().st_mode) == 0o700
    end(process)
    assert (left / "plain").is_file()
    with workspace("next"):
        assert not left.exists()


def test_a_workspace_in_use_stays(place: Path, working: tuple[subprocess.Popen[str], Path]) -> None:
    _, used = working
    with workspace("own") as own:
        assert remove_abandoned() == 0
        assert own.is_dir()
        assert (used / "plain").is_file()
    assert not own.exists()


def test_a_server_of_a_killed_process_is_stopped_and_its_data_go(place: Path) -> None:
    process, _ = start(_SCRATCH)
    (home,) = (path for path in place.iterdir() if path.is_dir())
    server = StackHome(home).process("postgres").record
    data = (home / "data" / "postgres").resolve()
    end(process)
    assert server is not None
    assert server.is_alive()
    assert data.is_dir()
    assert remove_abandoned() == 1
    assert not server.is_alive()
    assert not data.exists()
    assert not home.exists()


def test_a_place_of_another_account_is_refused(place: Path, tmp_path: Path) -> None:
    place.symlink_to(tmp_path)
    with pytest.raises(BackupError, match="belongs to another account"), workspace("own"):
        pass


def test_a_full_disk_is_told_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="No space left on device; TMPDIR names another"):
        workspaces.spool([b"x"], Path("/dev/full"))
    spool([b"one", b"two"], tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == b"onetwo"
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o600
