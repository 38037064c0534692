import math
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from samplemind.cache.serialization import COMPRESS_FROM, Form, dumps, loads
from samplemind.errors import InvalidInputError, SecretError, UnreadableValueError

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary() | st.uuids() | st.decimals(allow_nan=False) | st.dates() | st.timedeltas()
    | st.datetimes() | st.datetimes(timezones=st.just(UTC))
)  # fmt: skip
HASHABLE = st.integers() | st.text() | st.uuids() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.sets(HASHABLE, max_size=4)
        | st.frozensets(HASHABLE, max_size=4)
    ),
    max_leaves=15,
)
BOTH = pytest.mark.parametrize("form", [Form.MSGPACK, Form.JSON])


def _typed(value: Any) -> Any:
    """Return the value with its types, so that 1, True and 1.0 are told apart."""
    if isinstance(value, list | tuple):
        return (type(value), [_typed(item) for item in value])
    if isinstance(value, dict):
        return (dict, {each: (type(each), _typed(item)) for each, item in value.items()})
    return (type(value), value)


@BOTH
@given(value=VALUES)
def test_a_value_comes_back_type_by_type(form: Form, value: Any) -> None:
    assert _typed(loads(dumps(value, form))) == _typed(value)


@BOTH
@given(
    value=arrays.arrays(
        arrays.integer_dtypes() | arrays.floating_dtypes() | arrays.complex_number_dtypes()
        | arrays.boolean_dtypes(),
        arrays.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=5),
    )
)  # fmt: skip
def test_an_array_comes_back_with_type_and_shape(form: Form, value: Any) -> None:
    found = loads(dumps({"array": value}, form))["array"]
    assert (found.dtype, found.shape) == (value.dtype, value.shape)
    assert found.tobytes() == value.tobytes()
    assert found.flags.writeable


def test_an_aware_time_is_the_same_moment() -> None:
    moment = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    assert loads(dumps(moment)) == moment


def test_nan_comes_back() -> None:
    assert math.isnan(loads(dumps(math.nan)))


def test_large_values_are_compressed() -> None:
    text = "kick " * COMPRESS_FROM
    assert len(dumps(text)) < len(text) / 10
    assert loads(dumps(text)) == text


@given(st.data())
def test_no_part_of_a_value_is_taken_for_a_value(data: st.DataObject) -> None:
    whole = dumps(data.draw(VALUES))
    with pytest.raises(UnreadableValueError):
        loads(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(VALUES, st.data())
def test_a_flipped_bit_is_noticed(value: Any, data: st.DataObject) -> None:
    whole = bytearray(dumps(value))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(UnreadableValueError):
        loads(bytes(whole))


@given(st.binary())
def test_rubbish_is_never_interpreted(rubbish: bytes) -> None:
    with pytest.raises(UnreadableValueError):
        loads(rubbish)


def test_a_pickle_opens_only_for_who_asks_and_holds_the_key() -> None:
    whole = dumps(1 + 2j, Form.PICKLE, signing_key=b"k" * 32)
    assert loads(whole, form=Form.PICKLE, signing_key=b"k" * 32) == 1 + 2j
    with pytest.raises(UnreadableValueError, match="not asked for"):
        loads(whole, signing_key=b"k" * 32)
    with pytest.raises(UnreadableValueError, match="signature"):
        loads(whole, form=Form.PICKLE, signing_key=b"x" * 32)
    with pytest.raises(SecretError, match="SIGNING_KEY"):
        dumps(1, Form.PICKLE)


def test_a_hostile_pickle_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(_data: bytes) -> None:
        pytest.fail("a pickle with a wrong signature was opened")

    whole = dumps("x", Form.PICKLE, signing_key=b"attacker")
    monkeypatch.setattr(pickle, "loads", loaded)
    with pytest.raises(UnreadableValueError):
        loads(whole, form=Form.PICKLE, signing_key=b"ours")


@pytest.mark.parametrize("value", [object(), [print], np.array([object()]), 1 + 2j])
def test_what_has_no_form_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError):
        dumps(value)
