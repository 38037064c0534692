"""The directories of one embedded stack, and the lock that makes one process its owner.

    <home>/passwords.json    made once, readable by the owner only
    <home>/data/<store>      what a server stores; may be a link (see `account`)
    <home>/logs/<name>.log   what a server or worker printed; a large one is put away
    <home>/run/              lock, ports, addresses, records of processes, servers' settings

Invariant: everything that holds a secret is readable by the owner only; others may at most pass
through the home to the data directory of the account that owns it.
"""

import fcntl
import os
import re
import shutil
from pathlib import Path
from typing import Self

from samplemind.embedded.account import Account
from samplemind.embedded.process import ManagedProcess, ProcessRecord, current_process
from samplemind.errors import ServerStartError

_LOG_LIMIT_BYTES = 16 * 1024 * 1024
_LOGS_KEPT = 3

# initdb hands its paths to a shell between double quotes, and servers read theirs from settings.
_FORBIDDEN = re.compile(r"""["'$`\\\x00-\x1f\x7f-\x9f\ud800-\udfff]""")


def name_fault(path: Path) -> str | None:
    """Return what is wrong with the path of a home; none where servers can be given it."""
    # Bytes that are no UTF-8 are lone surrogates in Python's text.
    found = _FORBIDDEN.search(str(path))
    if found is None:
        return None
    return (
        f"the home {str(path)!r} holds {found.group()!r}: its path may hold no quote, $, "
        "backtick, backslash, control character or byte that is not UTF-8"
    )


class StackHome:
    """The places in one home; nothing is made before `prepare`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path / "data"
        self.logs = path / "logs"
        self.run = path / "run"

    def prepare(self, account: Account | None) -> None:
        """Make what is missing, such that `account` can pass through what is made here.

        A home that exists keeps its mode: opening it is for its owner to decide.

        Raises:
            ServerStartError: a directory cannot be made or written, or servers cannot be given
                the home's path.
        """
        fault = name_fault(self.path)
        if fault is not None:
            raise ServerStartError(fault)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for place in (self.path, self.data):
                if not place.is_dir():
                    place.mkdir(mode=0o700)
                    if account is not None:
                        os.chown(place, -1, account.gid)
                        place.chmod(0o710)
            for place in (self.logs, self.run):
                place.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            message = f"the home {self.path} cannot be used: {error.strerror} ({error.filename})"
            raise ServerStartError(message) from error

    def require_access(self) -> None:
        """Check that this account may use the home, if there is one.

        Raises:
            ServerStartError: it belongs to another account.
        """
        for place in (self.path, self.run):
            try:
                usable = not place.exists() or os.access(place, os.R_OK | os.W_OK | os.X_OK)
            except PermissionError:
                usable = False
            if not usable:
                message = (
                    f"{place} belongs to another account: run as that one, or choose another "
                    "home with SAMPLEMIND_HOME"
                )
                raise ServerStartError(message)

    def processes(self) -> list[ManagedProcess]:
        """Return every process on record, running or not."""
        return [self.process(path.stem) for path in sorted(self.run.glob("*.pid"))]

    def process(self, name: str) -> ManagedProcess:
        """Return the process of that name in this home, running or not."""
        return ManagedProcess(name, self.run / f"{name}.pid", self.log(name))

    def log(self, name: str) -> Path:
        """Return the log file of a process."""
        return self.logs / f"{name}.log"

    def rotate_logs(self) -> None:
        """Put every log away that has grown large, while its process goes on writing."""
        for log in self.logs.glob("*.log"):
            self.rotate_log(log.stem)

    def rotate_log(self, name: str) -> None:
        """Put a log away that has grown large; its process, if it runs, begins anew at its start.

        What it writes in the moment between the copy and the cut is lost.
        """
        log = self.log(name)
        if not log.is_file() or log.stat().st_size < _LOG_LIMIT_BYTES:
            return
        log.with_name(f"{log.name}.{_LOGS_KEPT}").unlink(missing_ok=True)  # makes room first
        # A process holds the file itself, whatever its name: a copy is taken, and the file is cut.
        draft = log.with_name(f"{log.name}.new")
        try:
            shutil.copyfile(log, draft)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        for age in range(_LOGS_KEPT - 1, 0, -1):
            older = log.with_name(f"{log.name}.{age}")
            if older.exists():
                older.replace(log.with_name(f"{log.name}.{age + 1}"))
        draft.replace(log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)

    def write_private(self, name: str, text: str) -> Path:
        """Replace a file in `run` that only the owner may read; return its path."""
        path = self.run / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        return path


class HomeLock:
    """Ownership of a home for as long as the process lives; the kernel frees it at its death."""

    def __init__(self, home: StackHome) -> None:
        self._path = home.run / "lock"
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> bool:
        """Take the lock if nobody has it; tell whether this object holds it now."""
        if self._descriptor is not None:
            return True
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        os.ftruncate(descriptor, 0)
        os.write(descriptor, current_process().to_json().encode())
        return True

    def owner(self) -> ProcessRecord | None:
        """Return the living process that owns the home, if any; for messages and for `down`."""
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return None
        # Empty between the taking of the lock and the writing of the record.
        record = ProcessRecord.from_json(text) if text else None
        return record if record is not None and record.is_alive() else None

    def release(self) -> None:
        """Give the lock back; repeating it is harmless."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
