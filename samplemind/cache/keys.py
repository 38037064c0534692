"""Every key of the cache's Redis, built in one place.

    sm:c1:v:<prefix>:<digest>   a cached value
    sm:c1:t:<tag>               the version of a tag
    sm:c1:l:<value's key>       who computes a value at the moment
    sm:c1:rate:…, sm:c1:pop:…   rate limits and popularity
    sm:c1:stats                 what all processes have counted

Invariant: a key holds the version of the format that its value has, so a deploy with a new format
never reads the old one. Two calls that bind the same arguments have the same key, however they are
written; values of different types (1, True, 1.0, "1") have different ones.
"""

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache
from pathlib import PurePath
from typing import Any
from uuid import UUID

import numpy as np

from samplemind.errors import InvalidInputError

FORMAT = 1
"""Raise it with every change of what is stored: the old entries then age out unread."""

_DIGEST_BYTES = 16
_MAX_NAME = 200
_UNSAFE = re.compile(r"[^\w.,@=+-]")
# Not floats: 0.0 and -0.0 are equal and have two keys.
_REMEMBERED = frozenset({str, bytes, int, bool, type(None), UUID})
_CALLS_KEPT = 1024
_PLAIN = (str, bytes, int, float, complex, Decimal, UUID, date, timedelta, PurePath)


class Keys:
    """The keys of one version of the format."""

    def __init__(self, version: int = FORMAT) -> None:
        self.namespace = f"sm:c{version}:"
        self._value = f"{self.namespace}v:"

    def value(self, key: str) -> str:
        """Return where the value of that key lies; `key` builds one from parts."""
        return self._value + key

    def shown(self, stored: str) -> str:
        """Return the key of a value that lies there: the inverse of `value`."""
        return stored.removeprefix(self._value)

    def tag(self, tag: str) -> str:
        """Return where the tag's version lies."""
        return f"{self.namespace}t:{tag}"

    def lease(self, key: str) -> str:
        """Return where the lease on computing that value lies."""
        return f"{self.namespace}l:{key}"

    def of(self, area: str, *names: str) -> str:
        """Return another readable key, such as that of a counter."""
        return self.namespace + ":".join((area, *map(name, names)))

    def prefix_of(self, stored: str) -> str:
        """Return the prefix of a stored value's key; of anything else, its area."""
        rest = stored.removeprefix(self._value)
        return rest.split(":", 1)[0] if rest != stored else stored.split(":")[2]


def key(prefix: str, *parts: object) -> str:
    """Return the key of a value that follows from the parts.

    Args:
        prefix: what is cached, such as `search`; statistics are told by it.
        parts: values that tell one from another; see `fingerprint`.

    Raises:
        InvalidInputError: a part is of a type without a fixed form.
    """
    return f"{name(prefix)}:{fingerprint(parts)}"


def name(text: str) -> str:
    """Return the text as a part of a key: itself where it is plain and short, else a digest.

    A part never holds a colon or a pattern's characters, and no two texts share one.
    """
    if text and len(text) <= _MAX_NAME and not _UNSAFE.search(text) and not text.startswith("="):
        return text
    return "=" + hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def fingerprint(value: object) -> str:
    """Return 32 hex digits that follow from type and content, the same in every process.

    Taken are None, booleans, numbers, texts, bytes, times, UUIDs, paths, enums, dataclasses, numpy
    arrays, and lists, tuples, sets and mappings of them.

    Raises:
        InvalidInputError: anything else, whose text may hold an address in memory.
    """
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    _feed(digest.update, value)
    return digest.hexdigest()


def call_parts(
    function: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any]
) -> tuple[object, ...]:
    """Return what tells one call of the function from another: its bound arguments.

    Raises:
        TypeError: the function does not take these arguments.
    """
    bound = _signature(function).bind(*arguments, **named)
    bound.apply_defaults()
    return (f"{function.__module__}.{function.__qualname__}", dict(bound.arguments))


class CallKeys:
    """The keys of one function's calls.

    Those of the last calls with plain arguments are kept: to bind and to digest them takes longer
    than a hit in the process.
    """

    def __init__(self, function: Callable[..., Any], prefix: str) -> None:
        self._function = function
        self._prefix = prefix
        self._known: dict[tuple[object, ...], str] = {}

    def of(self, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> str:
        """Return the key of a call; see `call_parts`.

        Raises:
            TypeError: the function does not take these arguments.
            InvalidInputError: an argument is of a type without a fixed form.
        """
        values = (*arguments, *named.values())
        kinds = tuple(map(type, values))
        if not _REMEMBERED.issuperset(kinds):
            return self._make(arguments, named)
        # 1 and True are equal, but not the same call.
        call = (values, kinds, *named)
        known = self._known.get(call)
        if known is None:
            if len(self._known) >= _CALLS_KEPT:
                self._known.clear()
            known = self._known[call] = self._make(arguments, named)
        return known

    def _make(self, arguments: Sequence[Any], named: Mapping[str, Any]) -> str:
        return key(self._prefix, *call_parts(self._function, arguments, named))


@cache
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


def _feed(update: Callable[[bytes], None], value: object) -> None:
    """Feed the value with its type and length before it, so that no two run together."""
    kind = type(value).__name__
    if value is None or isinstance(value, bool):
        _put(update, kind, repr(value).encode())
    elif isinstance(value, Enum):
        _put(update, f"{type(value).__module__}.{type(value).__qualname__}", value.name.encode())
    elif isinstance(value, np.ndarray):
        head = f"ndarray {value.dtype.str} {value.shape}"
        _put(update, head, np.ascontiguousarray(value).tobytes())
    elif isinstance(value, np.generic):
        _put(update, f"numpy {value.dtype.str}", value.tobytes())
    elif isinstance(value, bytes):
        _put(update, kind, value)
    elif isinstance(value, datetime):
        _put(update, kind, value.isoformat().encode())
    elif isinstance(value, _PLAIN):
        _put(update, kind, str(value).encode(errors="surrogatepass"))
    else:
        _feed_collection(update, value)


def _feed_collection(update: Callable[[bytes], None], value: object) -> None:
    if is_dataclass(value) and not isinstance(value, type):
        _put(update, f"{type(value).__module__}.{type(value).__qualname__}", b"")
        _feed(update, {field.name: getattr(value, field.name) for field in fields(value)})
    elif isinstance(value, Mapping):
        # In an order of its own: two mappings with the same entries are the same.
        entries = sorted((fingerprint(each), item) for each, item in value.items())
        _put(update, "mapping", str(len(entries)).encode())
        for entry, item in entries:
            update(entry.encode())
            _feed(update, item)
    elif isinstance(value, set | frozenset):
        _put(update, "set", "".join(sorted(map(fingerprint, value))).encode())
    elif isinstance(value, list | tuple):
        _put(update, type(value).__name__, str(len(value)).encode())
        for item in value:
            _feed(update, item)
    else:
        message = f"a {type(value).__name__} cannot be part of a cache key: pass what tells it"
        raise InvalidInputError(message)


def _put(update: Callable[[bytes], None], kind: str, content: bytes) -> None:
    update(f"{len(kind)}:{kind}{len(content)}:".encode())
    update(content)
