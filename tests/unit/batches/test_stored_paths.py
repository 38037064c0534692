"""Paths as text that MongoDB can hold."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplemind.documents.audio_file import audio_file_id
from samplemind.documents.text import load_path, make_storable, store_path
from samplemind.ids import new_id

# Any byte but NUL and the slash that parts names.
NAMES = st.binary(min_size=1, max_size=40).map(
    lambda name: name.replace(b"\0", b"\1").replace(b"/", b"\xe9")
)


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_any_absolute_path_comes_back_byte_for_byte(names: list[bytes]) -> None:
    path = Path("/", *map(os.fsdecode, names))
    stored = store_path(path)
    stored.encode()
    assert os.fsencode(load_path(stored)) == os.fsencode(path)


@given(NAMES, NAMES)
def test_two_paths_are_stored_alike_only_if_they_are_one(one: bytes, other: bytes) -> None:
    paths = [Path("/", os.fsdecode(name)) for name in (one, other)]
    assert (store_path(paths[0]) == store_path(paths[1])) == (paths[0] == paths[1])


@pytest.mark.parametrize("text", ["/music/Größe 日本.wav", "/a b/100%E9.wav", "/file:/x.wav"])
def test_a_path_that_is_text_is_stored_as_it_is(text: str) -> None:
    assert store_path(Path(text)) == text


def test_a_path_that_is_no_text_is_stored_as_its_file_uri() -> None:
    assert store_path(Path(os.fsdecode(b"/music/caf\xe9.wav"))) == "file:///music/caf%E9.wav"


def test_text_with_stray_bytes_becomes_storable() -> None:
    assert make_storable(os.fsdecode(b"caf\xe9 loop")) == "caf\N{REPLACEMENT CHARACTER} loop"
    assert make_storable("plain ☃") == "plain ☃"


def test_a_files_id_follows_from_owner_and_path() -> None:
    owner, path = new_id(), Path("/music/a.wav")
    ids = {
        audio_file_id(owner, path),
        audio_file_id(None, path),
        audio_file_id(owner, Path("/music/b.wav")),
    }
    assert len(ids) == 3
    assert audio_file_id(owner, path) in ids
