"""Text that MongoDB can hold, and paths as such text.

Invariant: every stored string is valid UTF-8, and a stored path gives back the very bytes that
name the file. Linux lets a file name hold any byte but NUL and `/`.
"""

import os
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote_to_bytes

from pydantic import AfterValidator, BeforeValidator, Field

_FILE_URI = "file://"
_LONGEST_PATH = 3 * 4096 + len(_FILE_URI)  # PATH_MAX, each byte percent-encoded


def canonical_path(path: Path) -> Path:
    """Return the one absolute name of a file, so that no file is in the library twice.

    Linked folders and `..` on the way are resolved. The last part is not, unless it is a folder:
    a link to a file is no file of the library.
    """
    if path.is_dir():
        return path.resolve()
    return path.parent.resolve() / path.name


def store_path(path: Path) -> str:
    """Return the text that stands for an absolute path in the documents.

    It is the path itself where its bytes are UTF-8, and its file URI (RFC 8089) where they are
    not. The two can't be confused, because an absolute path starts with a slash.
    """
    text = str(path)
    return path.as_uri() if _has_surrogates(text) else text


def load_path(stored: str) -> Path:
    """Return the path that `store_path` stored, byte for byte."""
    if stored.startswith(_FILE_URI):
        return Path(os.fsdecode(unquote_to_bytes(stored.removeprefix(_FILE_URI))))
    return Path(stored)


def make_storable(text: str) -> str:
    """Return text with a replacement character for each byte that was no UTF-8."""
    return os.fsencode(text).decode(errors="replace") if _has_surrogates(text) else text


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _storable(value: object) -> object:
    return make_storable(value) if isinstance(value, str) else value


def _check_stored_path(stored: str) -> str:
    if not stored.startswith(("/", _FILE_URI + "/")):
        message = "a stored path is absolute"
        raise ValueError(message)
    return stored


Name = Annotated[str, BeforeValidator(_storable), Field(max_length=1024)]
"""A short text: a title, a key, a format."""

Prose = Annotated[str, BeforeValidator(_storable), Field(max_length=10_000)]
"""A longer text: a description, a message."""

Tag = Annotated[str, BeforeValidator(_storable), Field(min_length=1, max_length=64)]
"""One tag."""

StoredPath = Annotated[str, Field(max_length=_LONGEST_PATH), AfterValidator(_check_stored_path)]
"""What `store_path` returned."""
