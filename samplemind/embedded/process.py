"""Processes that outlive the program that started them, known by pid and start time.

Invariant: the record of a process is on the disk before its program runs, so that no crash leaves
a server that nobody knows; and no process is ever signalled whose start time is not the recorded
one, so a reused pid is safe.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil

from samplemind.embedded.account import Account
from samplemind.errors import EmbeddedError, ServerStartError

# The shell waits for a line before it becomes the program (exec keeps pid and start time): the
# record is written in between. Should the starter die there, `read` fails and nothing runs.
_GATE = 'read -r _ && exec "$@" </dev/null'
_KILL_GRACE_S = 10
_POLL_S = 0.02


@dataclass(frozen=True)
class ProcessRecord:
    """Which process it is: `started` differs when another one has the same pid."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Return the record of a living process, or none."""
        started = _start_mark(pid)
        return None if started is None else cls(pid, started)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the record that `to_json` wrote."""
        fields = json.loads(text)
        return cls(int(fields["pid"]), str(fields["started"]))

    def to_json(self) -> str:
        """Return the record as text."""
        return json.dumps(asdict(self))

    def is_alive(self) -> bool:
        """Tell whether that very process runs; one that only waits to be reaped does not."""
        return _start_mark(self.pid) == self.started

    def stop(self, stop_signal: signal.Signals, grace_s: float) -> None:
        """Ask it to end, wait, and kill it after the grace; a process that is gone is fine."""
        try:
            process = psutil.Process(self.pid)
            if not self.is_alive():
                return
            process.send_signal(stop_signal)
            if not self.await_end(grace_s):
                _kill_family(process)
        except psutil.NoSuchProcess:  # it ended meanwhile
            return

    def await_end(self, timeout_s: float) -> bool:
        """Wait until it has ended; tell whether it has."""
        # psutil would wait until the parent has reaped it as well. A parent that died leaves that
        # to the system's first process, which in a container may never do it.
        deadline = time.monotonic() + timeout_s
        while self.is_alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True


class ManagedProcess:
    """One process with a name, a record and a log file."""

    def __init__(self, name: str, record_path: Path, log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        self._record_path = record_path
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def record(self) -> ProcessRecord | None:
        """The record of the process that was started last, by whomever."""
        try:
            return ProcessRecord.from_json(self._record_path.read_text())
        except FileNotFoundError:
            return None

    def spawn(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        account: Account | None = None,
        directory: Path = Path("/"),
    ) -> None:
        """Start the program in a session of its own, so that a Ctrl-C does not reach it.

        Raises:
            ServerStartError: the system refused to start it.
        """
        try:
            with self.log_path.open("ab") as log:
                child = subprocess.Popen(
                    ["/bin/sh", "-c", _GATE, "sh", *command],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=directory,
                    env=None if environment is None else dict(environment),
                    start_new_session=True,
                    user=None if account is None else account.uid,
                    group=None if account is None else account.gid,
                    extra_groups=None if account is None else [],
                )
            self._child = child
            self._open_gate(child)
        except (OSError, subprocess.SubprocessError) as error:
            message = f"{self.name} could not be started: {error}"
            raise ServerStartError(message) from error

    def _open_gate(self, child: subprocess.Popen[bytes]) -> None:
        record = ProcessRecord.of(child.pid)
        gate = child.stdin
        if record is None or gate is None:
            message = f"{self.name} ended before it started"
            raise ServerStartError(message)
        try:
            with gate:
                self._write(record)
                gate.write(b"\n")
        except BrokenPipeError as error:
            message = f"{self.name} ended before it started"
            raise ServerStartError(message) from error

    def _write(self, record: ProcessRecord) -> None:
        draft = self._record_path.with_suffix(".new")
        draft.write_text(record.to_json())
        draft.replace(self._record_path)

    def is_alive(self) -> bool:
        """Tell whether the recorded process runs."""
        if self._child is not None and self._child.poll() is not None:
            return False
        record = self.record
        return record is not None and record.is_alive()

    def exit_code(self) -> int | None:
        """Return how a child of this program ended; none while it runs or if it is no child."""
        return None if self._child is None else self._child.poll()

    def stop(self, stop_signal: signal.Signals, grace_s: float) -> None:
        """Stop the recorded process and forget it; repeating it is harmless.

        Raises:
            EmbeddedError: it outlived even a kill, or the system refused to stop it.
        """
        try:
            record = self.record
            if record is not None:
                record.stop(stop_signal, grace_s)
            if self._child is not None:
                self._child.wait(_KILL_GRACE_S)
                self._child = None
            self._record_path.unlink(missing_ok=True)
        except (OSError, ValueError, psutil.Error, subprocess.TimeoutExpired) as error:
            message = f"{self.name} could not be stopped: {error}"
            raise EmbeddedError(message) from error

    def log_tail(self, lines: int = 12) -> str:
        """Return the last lines of its log."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, self.log_path.stat().st_size - 8192))
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


def stop_all(
    processes: Sequence[ManagedProcess], stop_signal: signal.Signals, grace_s: float
) -> None:
    """Stop processes side by side; each is, whatever becomes of the others.

    Raises:
        EmbeddedError: one of them could not be stopped.
    """
    # Not `map`: at the first fault it cancels what has not begun yet.
    with ThreadPoolExecutor() as pool:
        stops = [pool.submit(process.stop, stop_signal, grace_s) for process in processes]
    for stop in stops:
        stop.result()


def _kill_family(process: psutil.Process) -> None:
    # What it started cannot be told to end by it any more.
    family = [process, *process.children(recursive=True)]
    records = [ProcessRecord.of(member.pid) for member in family]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    for record in records:
        if record is not None:
            record.await_end(_KILL_GRACE_S)


def _start_mark(pid: int) -> str | None:
    if not sys.platform.startswith("linux"):
        return _portable_start_mark(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name may hold spaces and parentheses: fields are counted after its last one.
    fields = stat.rpartition(")")[2].split()
    state, start_ticks = fields[0], fields[19]
    if state in "ZX":
        return None
    # Ticks count from the boot, so the boot is part of it. The wall clock is not: it may be set.
    return f"{_boot_id()}:{start_ticks}"


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _portable_start_mark(pid: int) -> str | None:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return f"{process.create_time():.3f}"
    except psutil.NoSuchProcess:
        return None


def current_process() -> ProcessRecord:
    """Return the record of the running program."""
    record = ProcessRecord.of(os.getpid())
    if record is None:
        message = "this process cannot see itself; is /proc mounted?"
        raise ServerStartError(message)
    return record
