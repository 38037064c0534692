"""Retention of temporary files: drafts that were never renamed to what they should become.

Invariant: only files below SAMPLEMIND_HOME/tmp and drafts of archives (`*.part`) are looked at, and
a link is removed, never followed.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from samplemind.maintenance.archive import archive_root
from samplemind.maintenance.pace import Pace
from samplemind.maintenance.retention import Group
from samplemind.settings import Settings


def file_groups(settings: Settings, before: datetime) -> list[Group]:
    """Return the files that are older, one group each."""
    return [Group(at, at, 1, size) for _, at, size in _old_files(settings, before)]


def delete_files(settings: Settings, before: datetime, pace: Pace) -> tuple[int, bool]:
    """Remove the files that are older; return how many, and whether all."""
    deleted = 0
    for path, _, _ in _old_files(settings, before):
        if pace.is_over:
            return deleted, False
        path.unlink(missing_ok=True)
        deleted += 1
    return deleted, True


def _old_files(settings: Settings, before: datetime) -> Iterator[tuple[Path, datetime, int]]:
    for root, pattern in ((settings.home / "tmp", "*"), (archive_root(settings), "*.part")):
        if not root.is_dir() or root.is_symlink():
            continue
        for path in root.rglob(pattern):
            try:
                facts = path.lstat()
            except FileNotFoundError:
                continue  # its writer has just renamed it
            at = datetime.fromtimestamp(facts.st_mtime, UTC)
            if at < before and (path.is_symlink() or path.is_file()):
                yield path, at, facts.st_size
