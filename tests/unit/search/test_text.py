import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplemind.search.text import split_query, split_words


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("DarkKick_03-final", "Dark Kick 3 final"),
        ("128bpm", "128 bpm"),
        ("F#m loop", "fsharp minor loop"),
        ("Gb min", "fsharp minor"),
        ("DarkF#Min7", "Dark fsharp minor 7"),
        ("pad_D♭.wav", "pad csharp wav"),
        ("Am", "a minor"),
        ("fm bass", "fm bass"),
        ("kick 007 000", "kick 7 0"),
        ("TR808", "TR 808"),
        ("a\x00b\udcffc", "a b c"),
        ("", ""),
    ],
)
def test_names_are_split_into_the_words_people_ask_for(written: str, words: str) -> None:
    assert split_words(written) == words


@given(st.text() | st.text(alphabet="aAbBfFmMin#♭ _-/038zé"))
def test_splitting_twice_changes_nothing(text: str) -> None:
    assert split_words(split_words(text)) == split_words(text)


@pytest.mark.parametrize(
    ("query", "split"),
    [
        ("kick -snare", "kick -snare"),
        ('"dark kick" or 808', '"dark kick" or 808'),
        ("kick_03", '"kick 3"'),
        ("-kick_03", '-"kick 3"'),
        ("128bpm", '"128 bpm"'),
        ("gb min or Am", 'fsharp minor or "a minor"'),
    ],
)
def test_a_query_keeps_its_operators_and_split_names_become_phrases(query: str, split: str) -> None:
    assert split_query(query).strip() == split


@given(st.text())
def test_any_text_can_be_a_query(query: str) -> None:
    split = split_query(query)
    assert "\x00" not in split
    split.encode()
