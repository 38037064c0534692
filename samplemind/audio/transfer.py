"""What a guarded child found, as bytes and back.

It is JSON, with arrays as base64 of their bytes: unlike a pickle, nothing in it can be executed,
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
from samplemind.audio.hints import Hints, Kind
from samplemind.audio.measure import Measurements
from samplemind.audio.outcome import Outcome

_ARRAY = "array"
_DTYPES = frozenset({"float16", "float32", "float64"})


def dump(found: Examination) -> bytes:
    """Return an examination as bytes."""
    measurements = found.measurements
    content = {
        "outcome": found.outcome.value,
        "facts": dataclasses.asdict(found.facts),
        "measurements": None
        if measurements is None
        else {
            field.name: _pack(getattr(measurements, field.name))
            for field in dataclasses.fields(measurements)
        },
    }
    return json.dumps(content).encode()


def load(data: bytes | bytearray) -> Examination:
    """Return the examination that `dump` made these bytes of.

    Raises:
        ValueError: they are not the bytes of an examination.
    """
    try:
        raw = json.loads(data)
        facts = raw["facts"]
        measurements = raw["measurements"]
        return Examination(
            outcome=Outcome(raw["outcome"]),
            facts=SoundFacts(**{**facts, "flags": tuple(facts["flags"])}),
            measurements=None if measurements is None else _unpack_measurements(measurements),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not an examination") from error


def hints_from(raw: Mapping[str, Any]) -> Hints:
    """Return hints from their fields as JSON gives them."""
    kind = raw["kind"]
    return Hints(raw["tempo_bpm"], raw["key"], None if kind is None else Kind(kind))


def _pack(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        encoded = base64.b64encode(value.tobytes()).decode()
        return {_ARRAY: [str(value.dtype), list(value.shape), encoded]}
    if isinstance(value, Mapping):
        return {name: _pack(item) for name, item in value.items()}
    return value


def _unpack(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if not isinstance(value, dict):
        return value
    if value.keys() != {_ARRAY}:
        return {name: _unpack(item) for name, item in value.items()}
    dtype, shape, encoded = value[_ARRAY]
    if dtype not in _DTYPES:
        raise ValueError("an array of no known type")
    flat = np.frombuffer(bytearray(base64.b64decode(encoded, validate=True)), dtype=dtype)
    return flat.reshape(shape)


def _unpack_measurements(raw: Mapping[str, Any]) -> Measurements:
    types = get_type_hints(Measurements)
    values = {}
    for name, value in raw.items():
        enum = types[name]
        is_enum = isinstance(enum, type) and issubclass(enum, StrEnum)
        values[name] = enum(value) if is_enum else _unpack(value)
    return Measurements(**values)
