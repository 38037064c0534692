import pytest

from samplemind.errors import InvalidInputError
from samplemind.search.filter_text import parse_kind, parse_range
from samplemind.search.filters import Range
from samplemind.search.keys import parse_key


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("120..130", Range(120, 130)),
        ("120..", Range(120, None)),
        ("..130", Range(None, 130)),
        ("128", Range(128, 128)),
        (" 99.5 .. 100 ", Range(99.5, 100)),
    ],
)
def test_a_range_is_read_however_it_is_open(text: str, expected: Range) -> None:
    assert parse_range(text) == expected


@pytest.mark.parametrize("text", ["", "..", "a..b", "130..120", "1 2", "1..2..3", "nan"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_range(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("F#m", "F# minor"),
        ("Gb minor", "F# minor"),
        ("Dmaj", "D major"),
        ("b", "B major"),
        ("Bbm", "A# minor"),
        ("E♭ major", "D# major"),
        ("Cb", "B major"),
    ],
)
def test_a_key_is_read_however_it_is_written(text: str, expected: str) -> None:
    assert parse_key(text) == expected


@pytest.mark.parametrize("text", ["", "H minor", "F##", "minor", "kick"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_key(text)


def test_a_kind_is_read_however_it_is_written() -> None:
    assert parse_kind("One-Shot") == parse_kind("oneshot") == "one_shot"
    assert parse_kind("loop") == "loop"
    with pytest.raises(InvalidInputError):
        parse_kind("song")
