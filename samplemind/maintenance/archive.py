"""Where archives go: an object store as far as archiving needs one.

Invariant: an object is there whole or not at all, and a second `put` of the same key replaces it.
"""

import os
from pathlib import Path
from typing import Protocol

from samplemind.errors import NotFoundError
from samplemind.settings import Settings


class ArchiveStore(Protocol):
    """What archiving asks of an object store; keys are paths with slashes."""

    def put(self, key: str, content: bytes) -> None:
        """Store an object; when it returns, the object would survive a crash."""

    def get(self, key: str) -> bytes:
        """Return an object.

        Raises:
            NotFoundError: there is none of this key.
        """
        ...


class DirectoryArchive:
    """Archives as files below a folder, for their owner only."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, content: bytes) -> None:
        """Write beside its place, flush to the disk, then rename."""
        place = self._root / key
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = place.with_name(f"{place.name}.{os.getpid()}.part")
        with draft.open("wb") as file:
            draft.chmod(0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(place)
        directory = os.open(place.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def get(self, key: str) -> bytes:
        """Read a file."""
        try:
            return (self._root / key).read_bytes()
        except FileNotFoundError as error:
            message = f"there is no archive {key} in {self._root}"
            raise NotFoundError(message) from error


def archive_root(settings: Settings) -> Path:
    """Return the folder that archives go to."""
    return settings.maintenance.archive or settings.home / "archive"


def archive_store(settings: Settings) -> ArchiveStore:
    """Return the store of the settings."""
    return DirectoryArchive(archive_root(settings))
