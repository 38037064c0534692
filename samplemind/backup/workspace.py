"""Directories in which the work of a backup lies decrypted for a while.

    <temporary directory>/samplemind-work-<uid>/lock         held while one is made or looked at
    <temporary directory>/samplemind-work-<uid>/<purpose>-…  locked by whoever works in it

Invariant: a directory is gone with its block. Where its process is killed the kernel frees the
lock, and whoever works next, or the nightly pruning, stops the servers that still run in it and
removes it. Others than the owner may at most pass through, to the data of the account that
PostgreSQL runs as.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from samplemind.embedded.home import StackHome
from samplemind.embedded.placement import ELSEWHERE
from samplemind.embedded.stack import EmbeddedStack
from samplemind.errors import BackupError, EmbeddedError
from samplemind.log import get_logger

_MODE = 0o711

_log = get_logger(__name__)


@contextmanager
def workspace(purpose: str) -> Iterator[Path]:
    """Make a directory for the block, mode 0700, and remove it with whatever runs or lies in it.

    Raises:
        BackupError: the temporary directory does not take it.
    """
    remove_abandoned()
    root = _root()
    with _alone(root), _translated(root):
        path = Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=root))
        lock = _try_lock(path)
    try:
        yield path
    finally:
        try:
            _erase(path)
        finally:
            if lock is not None:
                os.close(lock)


def remove_abandoned() -> int:
    """Remove what processes that were killed have left; return how many directories went.

    What cannot be removed is logged and left to the next: it must not keep a restore from running.
    """
    root = _root()
    removed = 0
    with _alone(root):
        found = [(path, _try_lock(path)) for path in sorted(root.iterdir()) if path.is_dir()]
    for path, lock in found:
        if lock is None:
            continue  # somebody works in it, or removes it already
        try:
            _erase(path)
        except (OSError, EmbeddedError) as error:
            _log.warning("backup.workspace_left", path=str(path), reason=str(error))
        else:
            removed += 1
            _log.info("backup.workspace_removed", path=str(path))
        finally:
            os.close(lock)
    return removed


def spool(blocks: Iterable[bytes], path: Path) -> None:
    """Write the blocks into a file that only its owner may read.

    Raises:
        BackupError: the disk is full, or does not take it. What the blocks raise is passed on.
    """
    with _translated(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for block in blocks:
            with _translated(path):
                view = memoryview(block)
                while view:
                    view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def _root() -> Path:
    root = Path(tempfile.gettempdir()) / f"samplemind-work-{os.geteuid()}"
    with _translated(root):
        root.mkdir(mode=_MODE, exist_ok=True)
        found = root.lstat()
        # Everybody may write into the temporary directory: another account may have come first.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            message = f"{root} belongs to another account: remove it, or let TMPDIR name a place"
            raise BackupError(message)
        if stat.S_IMODE(found.st_mode) != _MODE:
            root.chmod(_MODE)
    return root


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    # Nobody may take a directory for abandoned between its making and its lock.
    with _translated(root):
        descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    """Lock a directory; none: somebody else has it, or it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if not path.is_dir():  # whoever held the lock has removed it
        os.close(descriptor)
        return None
    return descriptor


def _erase(path: Path) -> None:
    home = StackHome(path)
    if home.run.is_dir():
        EmbeddedStack(path).stop()
    postgres = home.data / "postgres"
    if postgres.is_symlink():
        target = postgres.readlink()
        postgres.unlink()
        # Chosen because the account could not get into the home; a recovered directory stays.
        if target.parent.parent == ELSEWHERE and target.parent.is_dir():
            shutil.rmtree(target.parent)
    shutil.rmtree(path)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = (
            f"the temporary place {path} cannot be used: {error.strerror}; TMPDIR names another"
        )
        raise BackupError(message) from error
