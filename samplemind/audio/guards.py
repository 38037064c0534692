"""From an untrusted path to an open descriptor of one regular file, or a refusal.

Invariant: everything after `open_guarded` works on the descriptor, so nobody can exchange the file
between a check and its use. No link is followed in the last part of a path, and none at all below
an allowed root. Nothing here ever waits: pipes and devices are refused without being read.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from samplemind.audio.limits import DEFAULT_LIMITS, AudioLimits
from samplemind.audio.outcome import AudioRejectedError, Outcome
from samplemind.errors import AudioReadError

_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OPEN_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_HASH_BLOCK_BYTES = 2**20

_PERMANENT = {
    errno.ENOENT: Outcome.NOT_FOUND,
    errno.ENOTDIR: Outcome.NOT_FOUND,
    errno.ENAMETOOLONG: Outcome.NOT_FOUND,
    errno.EINVAL: Outcome.NOT_FOUND,
    errno.EILSEQ: Outcome.NOT_FOUND,
    errno.EACCES: Outcome.PERMISSION,
    errno.EPERM: Outcome.PERMISSION,
    errno.ELOOP: Outcome.SYMLINK,
    errno.ENXIO: Outcome.NOT_REGULAR_FILE,
    errno.ENODEV: Outcome.NOT_REGULAR_FILE,
    errno.EISDIR: Outcome.NOT_REGULAR_FILE,
    errno.EOVERFLOW: Outcome.TOO_LARGE,
}


@dataclass(frozen=True, slots=True)
class GuardedFile:
    """An open regular file within the size limits.

    Attributes:
        descriptor: open for reading; owned by `open_guarded`, which closes it.
        size_bytes: its size when it was opened.
        modified_ns: its modification time when it was opened.
    """

    descriptor: int
    size_bytes: int
    modified_ns: int

    def read_at(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset` without moving the descriptor's position."""
        if offset >= self.size_bytes:  # A header may claim offsets that no system call takes.
            return b""
        try:
            return os.pread(self.descriptor, length, offset)
        except OSError as error:
            raise _translate(error) from error

    def sha256(self) -> str:
        """Return the SHA-256 of the content in hexadecimal."""
        digest = hashlib.sha256()
        offset = 0
        while block := self.read_at(offset, _HASH_BLOCK_BYTES):
            digest.update(block)
            offset += len(block)
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Raise `AudioReadError` if the file was written to since it was opened.

        A file that is still being copied is whole a moment later, so this may be tried again.
        """
        now = os.fstat(self.descriptor)
        if (now.st_size, now.st_mtime_ns) != (self.size_bytes, self.modified_ns):
            raise AudioReadError("The file was changed while it was read; try it again.")


@contextmanager
def open_guarded(
    path: Path, *, root: Path | None = None, limits: AudioLimits = DEFAULT_LIMITS
) -> Iterator[GuardedFile]:
    """Open one untrusted path for reading.

    Args:
        path: absolute, or relative to the working directory.
        root: the folder outside of which nothing may be read; None sets no such bound.
        limits: smallest and largest size.

    Raises:
        AudioRejectedError: the path or the file is refused.
        AudioReadError: the file system failed; the same path may work later.
    """
    try:
        descriptor = _open_beneath(path, root) if root is not None else _open_plain(path)
    except OSError as error:
        raise _translate(error) from error
    except ValueError as error:  # A NUL byte, or text that no file system name can hold.
        raise AudioRejectedError(Outcome.NOT_FOUND) from error
    try:
        yield _check(descriptor, limits)
    finally:
        os.close(descriptor)


def hash_file(path: Path, *, root: Path | None = None, limits: AudioLimits = DEFAULT_LIMITS) -> str:
    """Return the SHA-256 of a file's bytes, behind the same guards as an analysis.

    Raises:
        AudioRejectedError: the path or the file is refused.
        AudioReadError: the file system failed, or the file changed meanwhile.
    """
    with open_guarded(path, root=root, limits=limits) as file:
        digest = file.sha256()
        file.check_unchanged()
        return digest


def _open_plain(path: Path) -> int:
    # Opening some devices has effects (a tape rewinds), so a look at the kind comes first; the
    # descriptor is checked again, because the name may mean another file by then.
    _require_regular(os.lstat(path).st_mode)
    return os.open(path, _OPEN_FILE)


def _open_beneath(path: Path, root: Path) -> int:
    """Walk from the root's descriptor one name at a time, following no link.

    Links in the folders of `path` are resolved once beforehand, so a link that stays inside the
    root still works; what is exchanged for a link after that is refused by the walk.
    """
    try:
        base = Path(os.path.realpath(root, strict=True))
        current = os.open(base, _OPEN_FOLDER)
    except OSError as error:
        message = "The folder that may be read cannot be opened; is it mounted?"
        raise AudioReadError(message) from error
    try:
        target = Path(os.path.realpath(path.parent, strict=True)) / path.name
        if path.name in ("", "..") or not target.is_relative_to(base) or target == base:
            raise AudioRejectedError(Outcome.OUTSIDE_ROOT)
        *folders, name = target.relative_to(base).parts
        for folder in folders:
            below = os.open(folder, _OPEN_FOLDER, dir_fd=current)
            os.close(current)
            current = below
        _require_regular(os.lstat(name, dir_fd=current).st_mode)
        return os.open(name, _OPEN_FILE, dir_fd=current)
    finally:
        os.close(current)


def _require_regular(mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise AudioRejectedError(Outcome.SYMLINK)
    if not stat.S_ISREG(mode):
        raise AudioRejectedError(Outcome.NOT_REGULAR_FILE)


def _check(descriptor: int, limits: AudioLimits) -> GuardedFile:
    status = os.fstat(descriptor)
    _require_regular(status.st_mode)
    if status.st_size == 0:
        raise AudioRejectedError(Outcome.EMPTY)
    if status.st_size < limits.min_size_bytes:
        raise AudioRejectedError(Outcome.TOO_SMALL, f"{status.st_size} bytes")
    if status.st_size > limits.max_size_bytes:
        raise AudioRejectedError(
            Outcome.TOO_LARGE,
            f"{status.st_size / 2**20:.0f} MiB of at most {limits.max_size_bytes / 2**20:.0f}",
        )
    return GuardedFile(descriptor, status.st_size, status.st_mtime_ns)


def _translate(error: OSError) -> AudioRejectedError | AudioReadError:
    """Return the refusal that a system error means, or the transient error for all others."""
    outcome = _PERMANENT.get(error.errno or 0)
    if outcome is not None:
        return AudioRejectedError(outcome)
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    return AudioReadError(f"The file system failed while the file was read: {reason}.")
