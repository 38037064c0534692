"""Which files to analyse, given what a person named.

A folder is walked in a fixed order without following links, and what has an audio extension in it
counts, a link or a pipe too, so that its outcome can say what is wrong with it. What is named
explicitly is taken as it is.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

AUDIO_EXTENSIONS = frozenset(
    {
        ".aac", ".aif", ".aifc", ".aiff", ".alac", ".ape", ".au", ".caf", ".flac", ".m4a", ".m4b",
        ".mka", ".mp2", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".rf64", ".snd", ".tta", ".w64",
        ".wav", ".wave", ".webm", ".wma", ".wv",
    }
)  # fmt: skip


def find_audio_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield each audio file once, sorted within each path, in the order of the paths.

    What cannot be looked at, a folder that may not be listed or what is in one that may not be
    entered, is given itself, so that it shows among the outcomes and is not taken for nothing.
    Hidden files (`._kick.wav`, which macOS leaves on foreign disks) are passed over.
    """
    seen: set[Path] = set()
    for path in paths:
        for file in _walk(path):
            if file not in seen:
                seen.add(file)
                yield file


def _walk(folder: Path) -> Iterator[Path]:
    waiting = [folder]  # A stack of its own, since folders may nest deeper than Python's.
    while waiting:
        path = waiting.pop()
        try:
            inside = _list(path) if _is_folder(path) else None
        except OSError:
            inside = None
        if inside is None:
            yield path
        else:
            waiting.extend(reversed(inside))


def _is_folder(path: Path) -> bool:
    # Path.is_dir() would follow a link.
    return stat.S_ISDIR(path.lstat().st_mode)


def _list(folder: Path) -> list[Path]:
    """Return a folder's own folders and audio files, sorted by name."""
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in sorted(entries, key=_name) if _wanted(entry)]


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _wanted(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith("."):
        return False
    if entry.is_dir(follow_symlinks=False):
        return True
    return Path(entry.name).suffix.lower() in AUDIO_EXTENSIONS
