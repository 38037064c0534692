"""How values become bytes and back.

A stored value is `magic, form, checksum, body`: one byte, one byte, four bytes (CRC-32 of form and
body), and the rest. The body is MessagePack (with types of our own for what it lacks), JSON, or,
only for a caller who asks by name, a pickle behind an HMAC-SHA256. From a size on it is compressed
by Zstandard.

Invariant: `loads` returns what `dumps` was given, type by type, or raises `UnreadableValueError`:
truncated, foreign and tampered bytes are recognised before they are interpreted. A pickle is never
opened unless the caller asked for one and its signature holds.
"""

import hashlib
import hmac
import json
import pickle
import struct
import zlib
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, cast
from uuid import UUID

import msgpack
import numpy as np

from samplemind.errors import InvalidInputError, SecretError, UnreadableValueError
from samplemind.zstandard import zstd

COMPRESS_FROM = 2048
MOST_BYTES = 64 * 2**20
"""Of one value, before compression: a bound on what a hostile frame may unfold to."""

_MAGIC = 0xC5
_HEAD = struct.Struct(">BBI")
_COMPRESSED = 0x80
_SIGNATURE_BYTES = 32
# Types of numpy that are plain bytes: objects would be pickled.
_ARRAY_KINDS = "biufcmMSUV"


class Form(StrEnum):
    """What the body is written in."""

    MSGPACK = "msgpack"
    JSON = "json"
    PICKLE = "pickle"


_CODES = {Form.MSGPACK: 1, Form.JSON: 2, Form.PICKLE: 3}
_FORMS = {code: form for form, code in _CODES.items()}
_LEVEL = 3


def dumps(value: object, form: Form = Form.MSGPACK, *, signing_key: bytes | None = None) -> bytes:
    """Return the value's bytes.

    Args:
        value: None, booleans, numbers, texts, bytes, and lists, tuples, sets and dictionaries of
            them; dates, aware or naive datetimes, timedeltas, UUIDs, Decimals and numpy arrays
            too. JSON takes the same. A pickle takes anything.
        form: what to write.
        signing_key: for a pickle.

    Raises:
        InvalidInputError: a value of another type, or one larger than `MOST_BYTES`.
        SecretError: a pickle without a key to sign it.
    """
    body = _write(value, form, signing_key)
    if len(body) > MOST_BYTES:
        message = f"a value of {len(body)} bytes is too large to cache: {MOST_BYTES} are allowed"
        raise InvalidInputError(message)
    code = _CODES[form]
    if len(body) >= COMPRESS_FROM:
        packed = zstd.compress(body, _LEVEL)
        if len(packed) < len(body):
            body, code = packed, code | _COMPRESSED
    return _HEAD.pack(_MAGIC, code, zlib.crc32(body, code)) + body


def loads(data: bytes, *, form: Form | None = None, signing_key: bytes | None = None) -> Any:
    """Return the value that the bytes hold.

    Args:
        data: what `dumps` returned.
        form: the only form that is accepted; none: any but a pickle.
        signing_key: for a pickle.

    Raises:
        UnreadableValueError: truncated, foreign or tampered bytes, or another form.
    """
    if len(data) < _HEAD.size:
        raise UnreadableValueError("shorter than its head")
    magic, code, checksum = _HEAD.unpack_from(data)
    found = _FORMS.get(code & ~_COMPRESSED)
    body = memoryview(data)[_HEAD.size :]
    if magic != _MAGIC or found is None or zlib.crc32(body, code) != checksum:
        raise UnreadableValueError("its head or its checksum is wrong")
    if found is not form and (form is not None or found is Form.PICKLE):
        message = f"it is written as {found.value}, which was not asked for"
        raise UnreadableValueError(message)
    try:
        return _read(_unfolded(body) if code & _COMPRESSED else body, found, signing_key)
    except UnreadableValueError:
        raise
    except Exception as error:
        message = f"its body cannot be read ({type(error).__name__})"
        raise UnreadableValueError(message) from error


def _write(value: object, form: Form, signing_key: bytes | None) -> bytes:
    try:
        if form is Form.MSGPACK:
            return cast(
                "bytes",
                msgpack.packb(
                    value, default=_extended, strict_types=True, unicode_errors="surrogatepass"
                ),
            )
        if form is Form.JSON:
            return json.dumps(_jsonable(value), ensure_ascii=False).encode(errors="surrogatepass")
        pickled = pickle.dumps(value)
    except (TypeError, ValueError, OverflowError, RecursionError, AttributeError) as error:
        message = f"this value cannot be cached as {form.value}: {error}"
        raise InvalidInputError(message) from error
    except pickle.PicklingError as error:
        message = f"this value cannot be pickled: {error}"
        raise InvalidInputError(message) from error
    return _signature(pickled, signing_key) + pickled


def _read(body: Any, form: Form, signing_key: bytes | None) -> Any:
    if form is Form.MSGPACK:
        return msgpack.unpackb(
            body, ext_hook=_restored, strict_map_key=False, unicode_errors="surrogatepass"
        )
    if form is Form.JSON:
        return _from_jsonable(json.loads(bytes(body)))
    signature, pickled = bytes(body[:_SIGNATURE_BYTES]), bytes(body[_SIGNATURE_BYTES:])
    if signing_key is None or not hmac.compare_digest(signature, _signature(pickled, signing_key)):
        raise UnreadableValueError("the signature of its pickle is wrong")
    return pickle.loads(pickled)  # noqa: S301 - signed by a holder of the key


def _unfolded(body: Any) -> bytes:
    size = zstd.get_frame_info(body).decompressed_size
    if size is None or size > MOST_BYTES:
        raise UnreadableValueError("it says that it unfolds to too much")
    return zstd.decompress(body)


def _signature(pickled: bytes, signing_key: bytes | None) -> bytes:
    if not signing_key:
        message = "pickles are signed: set SAMPLEMIND_CACHE_SIGNING_KEY"
        raise SecretError(message)
    return hmac.digest(signing_key, pickled, hashlib.sha256)


# What MessagePack lacks, by number; a number is never given to another type.


def _nested(value: object) -> bytes:
    return cast(
        "bytes",
        msgpack.packb(value, default=_extended, strict_types=True, unicode_errors="surrogatepass"),
    )


def _unnested(data: bytes) -> Any:
    return msgpack.unpackb(
        data, ext_hook=_restored, strict_map_key=False, unicode_errors="surrogatepass"
    )


def _write_datetime(value: datetime) -> bytes:
    # An aware time comes back as the same moment in UTC.
    aware = value.tzinfo is not None
    return (value.astimezone(UTC) if aware else value).isoformat().encode()


def _write_array(value: Any) -> bytes:
    if value.dtype.kind not in _ARRAY_KINDS or value.dtype.hasobject:
        message = f"an array of {value.dtype} holds objects"
        raise TypeError(message)
    if value.dtype.names is not None:
        message = "an array with named fields has no plain form"
        raise TypeError(message)
    return _nested([value.dtype.str, list(value.shape), np.ascontiguousarray(value).tobytes()])


def _read_array(data: bytes) -> Any:
    dtype, shape, content = _unnested(data)
    # A copy, so that the caller may write to it.
    return np.frombuffer(content, dtype=np.dtype(dtype)).reshape(shape).copy()


def _write_timedelta(value: timedelta) -> bytes:
    return _nested([value.days, value.seconds, value.microseconds])


_Pair = tuple[type, Callable[[Any], bytes], Callable[[bytes], Any]]
_TYPES: dict[int, _Pair] = {
    1: (datetime, _write_datetime, lambda data: datetime.fromisoformat(data.decode())),
    2: (
        date,
        lambda value: value.isoformat().encode(),
        lambda data: date.fromisoformat(data.decode()),
    ),
    3: (timedelta, _write_timedelta, lambda data: timedelta(*_unnested(data))),
    4: (UUID, lambda value: value.bytes, lambda data: UUID(bytes=data)),
    5: (Decimal, lambda value: str(value).encode(), lambda data: Decimal(data.decode())),
    6: (np.ndarray, _write_array, _read_array),
    7: (tuple, lambda value: _nested(list(value)), lambda data: tuple(_unnested(data))),
    8: (set, lambda value: _nested(list(value)), lambda data: set(_unnested(data))),
    9: (frozenset, lambda value: _nested(list(value)), lambda data: frozenset(_unnested(data))),
    10: (int, lambda value: str(value).encode(), lambda data: int(data)),
    11: (bytes, bytes, bytes),
}
_NUMBERS = {kind: number for number, (kind, _, _) in _TYPES.items()}


def _extended(value: object) -> msgpack.ExtType:
    number = _NUMBERS.get(type(value))
    if number is None:
        message = f"a {type(value).__name__} has no form of its own"
        raise TypeError(message)
    return msgpack.ExtType(number, _TYPES[number][1](value))


def _restored(number: int, data: bytes) -> Any:
    if number not in _TYPES:
        message = f"type {number} is unknown"
        raise UnreadableValueError(message)
    return _TYPES[number][2](data)


def _jsonable(value: object) -> object:
    """Return the value as JSON has it; what JSON lacks becomes `{"$": [number, hex]}`."""
    if value is None or type(value) in (bool, str, int, float):
        return value
    if type(value) is list:
        return [_jsonable(item) for item in value]
    if type(value) is dict and all(type(each) is str and each != "$" for each in value):
        return {each: _jsonable(item) for each, item in value.items()}
    if type(value) is dict:
        return {"$": [0, [[_jsonable(each), _jsonable(item)] for each, item in value.items()]]}
    extended = _extended(value)
    return {"$": [extended.code, extended.data.hex()]}


def _from_jsonable(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_jsonable(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$" not in value:
        return {each: _from_jsonable(item) for each, item in value.items()}
    number, content = value["$"]
    if number == 0:
        return {_from_jsonable(each): _from_jsonable(item) for each, item in content}
    return _restored(number, bytes.fromhex(content))
