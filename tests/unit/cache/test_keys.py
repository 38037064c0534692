from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplemind.cache.keys import CallKeys, Keys, call_parts, fingerprint, key, name
from samplemind.errors import InvalidInputError

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
VALUES = st.recursive(
    PLAIN | st.uuids() | st.decimals() | st.datetimes() | st.timedeltas(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Point:
    x: int
    y: int


ARGUMENT = st.sampled_from([0, 1, True, False, 0.0, -0.0, 1.0, "1", b"1", None, "a", (1,)])
NAMED = st.sampled_from(["a", "b"])


def play(first: int, second: int = 2, *rest: int, loud: bool = False, **more: int) -> None:
    """Take arguments of every kind."""


def _parts(*args: Any, **kwargs: Any) -> str:
    return fingerprint(call_parts(play, args, kwargs))


def test_the_same_call_has_the_same_key_however_it_is_written() -> None:
    assert _parts(1) == _parts(first=1) == _parts(1, 2) == _parts(1, second=2, loud=False)
    assert _parts(1, 2, a=1, b=2) == _parts(1, 2, b=2, a=1)


def test_other_arguments_have_another_key() -> None:
    calls = [_parts(1), _parts(2), _parts(1, 3), _parts(1, 2, 3), _parts(1, loud=True)]
    assert len(set(calls)) == len(calls)


@given(
    st.lists(st.tuples(st.lists(ARGUMENT, max_size=3), st.dictionaries(NAMED, ARGUMENT))),
)
def test_a_call_that_is_remembered_has_the_key_that_is_made_for_it(
    calls: list[tuple[list[Any], dict[str, Any]]],
) -> None:
    def takes_all(*rest: Any, **more: Any) -> None:
        """Take any arguments."""

    keys = CallKeys(takes_all, "p")
    for args, kwargs in [*calls, *calls]:
        assert keys.of(tuple(args), kwargs) == key("p", *call_parts(takes_all, args, kwargs))


def test_values_of_different_types_differ() -> None:
    alike = [
        1, 1.0, True, "1", b"1", None, "None", "red", Colour.RED, [], (), set(), {}, [1], (1,), {1},
        np.int64(1), np.ones(1), np.ones(1, np.float32), np.ones((1, 1)), Point(1, 2),
        {"x": 1, "y": 2}, datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01 00:00:00+00:00",
    ]  # fmt: skip
    assert len({fingerprint(value) for value in alike}) == len(alike)


@given(st.lists(st.text(), max_size=5), st.lists(st.text(), max_size=5))
def test_neighbouring_texts_never_run_together(first: list[str], second: list[str]) -> None:
    assert (fingerprint(first) == fingerprint(second)) == (first == second)


@given(VALUES)
def test_a_fingerprint_follows_from_the_value(value: Any) -> None:
    assert fingerprint(value) == fingerprint(value)
    assert fingerprint([value]) != fingerprint(value)


@given(st.dictionaries(st.text(), st.integers(), max_size=6))
def test_the_order_of_a_mapping_plays_no_part(value: dict[str, int]) -> None:
    assert fingerprint(value) == fingerprint(dict(reversed(value.items())))


@given(st.text(), st.text())
def test_a_name_is_one_plain_part_and_no_two_share_it(first: str, second: str) -> None:
    assert (name(first) == name(second)) == (first == second)
    assert not set(name(first)) & set(":*?[]\\ \n\x00")


def test_versions_and_areas_never_meet() -> None:
    old, new = Keys(1), Keys(2)
    place = key("search", 1)
    assert old.value(place) != new.value(place)
    assert len({new.value("a"), new.tag("a"), new.lease("a"), new.of("a")}) == 4
    assert new.prefix_of(new.value(place)) == "search"


def test_what_has_no_fixed_form_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="object"):
        key("search", object())
