"""What was found in a file, as plain values or bytes and back: from a guarded child, or a cache.

The bytes are JSON, with arrays as base64 of theirs: unlike a pickle, nothing in it can be executed,
and whatever does not have the exact shape of an `Examination` is refused.
"""

import base64
import dataclasses
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, get_type_hints

import numpy as np

from samplemind.audio.examination import Examination, SoundFacts
from samplemind.audio.measure import Measurements
from samplemind.audio.outcome import Outcome

_ARRAY = "array"
_DTYPES = frozenset({"float16", "float32", "float64"})


def to_plain(found: Examination) -> dict[str, Any]:
    """Return an examination as numbers, texts, lists, dictionaries and arrays."""
    measured = found.measurements
    return {
        "outcome": found.outcome.value,
        "facts": _plain(dataclasses.asdict(found.facts)),
        "measurements": None
        if measured is None
        else {
            field.name: _plain(getattr(measured, field.name))
            for field in dataclasses.fields(measured)
        },
    }


def from_plain(raw: Any) -> Examination:
    """Return the examination that `to_plain` made these values of.

    Raises:
        ValueError: they are not those of an examination.
    """
    try:
        facts, measured = raw["facts"], raw["measurements"]
        return Examination(
            outcome=Outcome(raw["outcome"]),
            facts=SoundFacts(**{**facts, "flags": tuple(facts["flags"])}),
            measurements=None if measured is None else _measurements(measured),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not an examination") from error


def dump(found: Examination) -> bytes:
    """Return an examination as bytes."""
    return json.dumps(_pack(to_plain(found))).encode()


def load(data: bytes | bytearray) -> Examination:
    """Return the examination that `dump` made these bytes of.

    Raises:
        ValueError: they are not the bytes of an examination.
    """
    try:
        raw = _unpack(json.loads(data))
    except TypeError as error:
        raise ValueError("not an examination") from error
    return from_plain(raw)


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _pack(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        encoded = base64.b64encode(value.tobytes()).decode()
        return {_ARRAY: [str(value.dtype), list(value.shape), encoded]}
    if isinstance(value, Mapping):
        return {name: _pack(item) for name, item in value.items()}
    return value


def _unpack(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value.keys() != {_ARRAY}:
        return {name: _unpack(item) for name, item in value.items()}
    dtype, shape, encoded = value[_ARRAY]
    if dtype not in _DTYPES:
        raise ValueError("an array of no known type")
    flat = np.frombuffer(bytearray(base64.b64decode(encoded, validate=True)), dtype=dtype)
    return flat.reshape(shape)


def _measurements(raw: Mapping[str, Any]) -> Measurements:
    types = get_type_hints(Measurements)
    values: dict[str, Any] = {}
    for name, value in raw.items():
        enum = types[name]
        if isinstance(enum, type) and issubclass(enum, StrEnum):
            values[name] = enum(value)
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    return Measurements(**values)
