import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from samplemind.embedded.process import ManagedProcess, ProcessRecord, current_process, stop_all
from samplemind.errors import EmbeddedError, ServerStartError

_SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
_IGNORE_SIGTERM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


@pytest.fixture
def process(tmp_path: Path) -> ManagedProcess:
    return ManagedProcess("probe", tmp_path / "probe.pid", tmp_path / "probe.log")


def _await_log(process: ManagedProcess, word: str) -> None:
    while word not in process.log_tail():
        assert process.is_alive()


def test_a_process_is_known_to_another_program_by_its_record(process, tmp_path):
    process.spawn(_SLEEP)
    other = ManagedProcess("probe", tmp_path / "probe.pid", tmp_path / "probe.log")
    assert other.is_alive()
    other.stop(signal.SIGTERM, 10)
    assert not process.is_alive()
    assert other.record is None


def test_a_reused_pid_is_never_signalled(tmp_path):
    with subprocess.Popen(_SLEEP) as stranger:
        real = ProcessRecord.of(stranger.pid)
        assert real is not None
        stale = ProcessRecord(stranger.pid, "another boot:1")
        assert not stale.is_alive()
        stale.stop(signal.SIGKILL, 1)
        assert real.is_alive()
        stranger.kill()


def test_a_process_that_waits_to_be_reaped_is_not_alive():
    child = subprocess.Popen(_SLEEP)
    record = ProcessRecord.of(child.pid)
    assert record is not None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    assert not record.is_alive()
    child.wait()


def test_a_program_does_not_run_before_its_record_is_written(tmp_path):
    marker = tmp_path / "ran"
    missing = tmp_path / "missing" / "probe.pid"
    process = ManagedProcess("probe", missing, tmp_path / "probe.log")
    before = set(psutil.Process().children())
    with pytest.raises(ServerStartError, match="No such file"):
        process.spawn(["/bin/touch", str(marker)])
    psutil.wait_procs(set(psutil.Process().children()) - before, timeout=10)
    assert not marker.exists()


def test_a_log_that_cannot_be_opened_is_an_error_of_the_start(tmp_path):
    log = tmp_path / "probe.log"
    log.mkdir()
    with pytest.raises(ServerStartError, match="probe could not be started"):
        ManagedProcess("probe", tmp_path / "probe.pid", log).spawn(_SLEEP)


def test_a_process_that_cannot_be_stopped_does_not_save_the_others(process, tmp_path):
    process.spawn(_SLEEP)
    (tmp_path / "odd.pid").write_text("no record")
    odd = ManagedProcess("odd", tmp_path / "odd.pid", tmp_path / "odd.log")
    with pytest.raises(EmbeddedError, match="odd could not be stopped"):
        stop_all([odd, process], signal.SIGTERM, 10)
    assert not process.is_alive()


def test_a_process_that_ignores_the_signal_is_killed_after_the_grace(process):
    process.spawn([sys.executable, "-c", _IGNORE_SIGTERM])
    _await_log(process, "deaf")
    process.stop(signal.SIGTERM, 0.2)
    assert not process.is_alive()


def test_stopping_what_never_ran_is_harmless(process):
    process.stop(signal.SIGTERM, 1)
    assert not process.is_alive()


def test_the_record_of_a_program_survives_its_text_form():
    record = current_process()
    assert ProcessRecord.from_json(record.to_json()) == record
    assert record.is_alive()
