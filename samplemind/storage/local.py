"""Objects as files below a directory of this machine.

Invariant: a file below the root is a whole object. Uploads are written into `.uploads`, flushed
to the disk and moved into place in one step, so neither a crash nor a full disk leaves half of
one. Never follows a key out of its root.
"""

import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from samplemind.errors import NotFoundError, SampleMindError, StorageError
from samplemind.ids import new_id
from samplemind.storage.store import Measure, StoredObject, Written, check_key

_UPLOADS = ".uploads"
_READ_BYTES = 1 << 20
# A directory may be swept away, as it is empty, between its making and the move into it.
_PLACE_ATTEMPTS = 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LocalStore:
    """A directory; it is made when the first object is stored."""

    def __init__(self, root: Path) -> None:
        """Take the directory's path."""
        self._root = root.expanduser().absolute()
        self._uploads = self._root / _UPLOADS

    @property
    def location(self) -> str:
        """The directory as a URL."""
        return self._root.as_uri()

    def put_stream(self, key: str, blocks: Iterable[bytes]) -> Written:
        """Store the blocks under the key; an older object is replaced in one step."""
        measure = Measure(blocks)
        with self._upload(key) as temporary:
            _write(key, temporary, measure)
            with _translated(key):
                self._place(temporary, self._path(key), replace=True)
        return measure.result()

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Store a small object where there is none; return whether it was stored."""
        with self._upload(key) as temporary:
            _write(key, temporary, [content])
            if self._path(key).is_file():
                return False
            with _translated(key):
                try:
                    self._place(temporary, self._path(key), replace=False)
                except FileExistsError:
                    if self._path(key).is_file():
                        return False
                    raise
            return True

    def get_stream(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield an object's bytes from `start`, at most `length` of them."""
        with _translated(key), self._path(key).open("rb", buffering=0) as file:
            file.seek(start)
            left = length
            while left is None or left > 0:
                block = file.read(_READ_BYTES if left is None else min(_READ_BYTES, left))
                if not block:
                    return
                left = None if left is None else left - len(block)
                yield block

    def head(self, key: str) -> StoredObject:
        """Return an object's size and time."""
        with _translated(key):
            found = self._path(key).stat()
            if not stat.S_ISREG(found.st_mode):
                message = f"there is no object {key}"
                raise NotFoundError(message)
        return _described(key, found)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield every object whose key begins with the prefix, in the order of the keys."""
        # Below the last whole directory of the prefix; the rest is a part of a name.
        directory = prefix.rpartition("/")[0]
        base = self._path(directory) if directory else self._root
        with _translated(prefix):
            keys = sorted(key for key in self._keys(base) if key.startswith(prefix))
        for key in keys:
            with suppress(NotFoundError):  # deleted meanwhile
                yield self.head(key)

    def delete(self, key: str) -> None:
        """Remove an object and the directories that it leaves empty."""
        path = self._path(key)
        with _translated(key):
            path.unlink(missing_ok=True)
            for directory in path.parents:
                if directory == self._root:
                    break
                try:
                    directory.rmdir()
                except OSError:
                    break  # others are in it

    def abort_uploads(self, prefix: str, older_than: timedelta) -> int:
        """Remove what uploads that have not been written to for so long have left.

        The prefix is not looked at: a file of an upload does not tell its key.
        """
        del prefix
        before = time.time() - older_than.total_seconds()
        removed = 0
        with _translated(_UPLOADS):
            for file in list(self._uploads.glob("*")):
                with suppress(FileNotFoundError):
                    if file.stat().st_mtime < before:
                        file.unlink()
                        removed += 1
        return removed

    def close(self) -> None:
        """Nothing is open between calls."""

    def _path(self, key: str) -> Path:
        check_key(key)
        if key.split("/", 1)[0] == _UPLOADS:
            message = f"keys below {_UPLOADS} are the store's own"
            raise StorageError(message)
        return self._root / key

    def _keys(self, base: Path) -> Iterator[str]:
        for directory, names, files in os.walk(base, onerror=_refuse_unreadable):
            if Path(directory) == self._root and _UPLOADS in names:
                names.remove(_UPLOADS)
            place = Path(directory).relative_to(self._root)
            for file in files:
                yield (place / file).as_posix()

    @contextmanager
    def _upload(self, key: str) -> Iterator[Path]:
        self._path(key)
        temporary = self._uploads / str(new_id())
        with _translated(key):
            self._uploads.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _place(self, temporary: Path, path: Path, *, replace: bool) -> None:
        for attempt in range(_PLACE_ATTEMPTS):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                if replace:
                    temporary.replace(path)
                else:
                    path.hardlink_to(temporary)
                break
            except FileNotFoundError:
                if attempt + 1 == _PLACE_ATTEMPTS:
                    raise
        for directory in path.parents:
            # New directories too: a name that was not flushed is lost with the power.
            _flush(directory)
            if directory == self._root:
                break


def _write(key: str, path: Path, blocks: Iterable[bytes]) -> None:
    with _translated(key):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for block in blocks:  # what the blocks raise is not the store's
            with _translated(key):
                view = memoryview(block)
                while view:
                    view = view[os.write(descriptor, view) :]
        with _translated(key):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_unreadable(error: OSError) -> None:
    # Walking on would make a directory that cannot be read look like an empty one.
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _flush(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _described(key: str, found: os.stat_result) -> StoredObject:
    return StoredObject(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except SampleMindError:
        raise
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        message = f"there is no object {key}"
        raise NotFoundError(message) from error
    except FileExistsError as error:
        message = f"{key} cannot be stored: a part of its path is an object"
        raise StorageError(message) from error
    except OSError as error:
        if error.errno in _FULL:
            message = f"no space is left for {key}: {error.strerror}"
        else:
            message = f"the directory did not take or give {key}: {error.strerror}"
        raise StorageError(message) from error
