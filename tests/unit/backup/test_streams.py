"""Compression and encryption of streams, and what damage does to them."""

import gzip
import io
import os
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samplemind.backup.codec import Codec, CodecName, decompress, zstd
from samplemind.backup.encryption import FRAME_BYTES, DataKey, Keyring, WrappedKey
from samplemind.errors import BackupCorruptError, InvalidInputError, SecretError

_KEY = DataKey("b1", bytes(range(32)))
_HEADER_BYTES = 42
_FRAME = FRAME_BYTES + 16


def _blocks(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


@pytest.mark.parametrize("codec", list(CodecName))
@pytest.mark.parametrize("threads", [0, 2])
@settings(max_examples=20, deadline=None)
@given(content=st.binary(max_size=3000), repeat=st.integers(1, 900), size=st.integers(1, 70_000))
def test_what_is_compressed_comes_back(codec, threads, content, repeat, size):
    plain = content * repeat
    stored = b"".join(Codec(codec, threads=threads).compress(_blocks(plain, size)))
    assert b"".join(decompress(codec, _blocks(stored, size))) == plain


def test_stock_tools_read_what_is_compressed():
    plain = os.urandom(1000) * 3000
    assert gzip.decompress(b"".join(Codec(CodecName.GZIP).compress([plain]))) == plain
    assert zstd.decompress(b"".join(Codec(CodecName.ZSTD, threads=2).compress([plain]))) == plain


@pytest.mark.parametrize("codec", [CodecName.GZIP, CodecName.ZSTD])
@pytest.mark.parametrize("harm", ["cut", "cut_all", "longer", "twice", "flip"])
def test_a_damaged_stream_is_refused(codec: CodecName, harm: str):
    stored = b"".join(Codec(codec).compress([os.urandom(1000) * 300]))
    middle = len(stored) // 2
    damaged = {
        "cut": stored[:-1],
        "cut_all": b"",
        "longer": stored + b"\0",
        "twice": stored * 2,
        "flip": stored[:middle] + bytes([stored[middle] ^ 1]) + stored[middle + 1 :],
    }[harm]
    with pytest.raises(BackupCorruptError):
        list(decompress(codec, _blocks(damaged, 1000)))


@pytest.mark.parametrize("codec", [CodecName.GZIP, CodecName.ZSTD])
def test_a_small_stream_that_stands_for_a_huge_one_takes_little_memory(codec: CodecName):
    stored = b"".join(Codec(codec).compress(bytes(1 << 20) for _ in range(100)))
    tracemalloc.start()
    size = sum(len(block) for block in decompress(codec, [stored]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == 100 << 20
    assert peak < 24 << 20


def test_a_level_that_a_codec_does_not_have_is_refused():
    with pytest.raises(InvalidInputError, match="levels 1 to 9"):
        Codec(CodecName.GZIP, level=12)


@settings(max_examples=30, deadline=None)
@given(
    size=st.sampled_from([0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES]),
    block=st.integers(1000, 2_000_000),
)
def test_what_is_encrypted_comes_back(size, block):
    plain = os.urandom(size)
    stored = b"".join(_KEY.encrypt("o", _blocks(plain, block)))
    assert b"".join(_KEY.decrypt("o", _blocks(stored, block))) == plain


def test_the_same_content_is_never_encrypted_to_the_same_bytes():
    first, second = (b"".join(_KEY.encrypt("o", [b"same" * 100])) for _ in range(2))
    assert first != second


def _frames(stored: bytes) -> list[bytes]:
    return [stored[:_HEADER_BYTES], *_blocks(stored[_HEADER_BYTES:], _FRAME)]


@pytest.mark.parametrize(
    "harm",
    [
        lambda f: f[:-1],
        lambda f: f[:1],
        lambda f: f[:2],
        lambda f: [*f[:-1], f[-1][:-1]],
        lambda f: [*f[:-1], f[-1][:7]],
        lambda f: [f[0], f[2], f[1], f[3]],
        lambda f: [f[0], f[1], f[1], f[2], f[3]],
        lambda f: [f[0], f[2], f[3]],
        lambda f: [*f, f[3]],
        lambda f: [*f, b"\0"],
        lambda f: [f[0][:-1] + bytes([f[0][-1] ^ 1]), *f[1:]],
        lambda f: [b"", *f[1:]],
        lambda f: [],
    ],
)
def test_a_stream_that_was_cut_or_reordered_does_not_open(harm):
    frames = _frames(b"".join(_KEY.encrypt("o", [os.urandom(2 * FRAME_BYTES + 100)])))
    assert len(frames) == 4
    with pytest.raises(BackupCorruptError):
        list(_KEY.decrypt("o", harm(frames)))


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 1 << 20), bit=st.integers(0, 7))
def test_no_bit_may_change(place, bit):
    stored = bytearray(b"".join(_KEY.encrypt("o", [b"x" * 5000])))
    stored[place % len(stored)] ^= 1 << bit
    with pytest.raises(BackupCorruptError):
        list(_KEY.decrypt("o", [bytes(stored)]))


def test_an_object_of_another_name_or_backup_does_not_open():
    stored = b"".join(_KEY.encrypt("o", [b"plain"]))
    with pytest.raises(BackupCorruptError, match="frame 0 of other"):
        list(_KEY.decrypt("other", [stored]))
    with pytest.raises(BackupCorruptError):
        list(DataKey("b2", _KEY.secret).decrypt("o", [stored]))


def test_nothing_of_a_damaged_frame_is_given_out():
    frames = _frames(b"".join(_KEY.encrypt("o", [os.urandom(2 * FRAME_BYTES + 100)])))
    frames[2] = frames[2][:-1] + bytes([frames[2][-1] ^ 1])
    got = io.BytesIO()
    with pytest.raises(BackupCorruptError, match="frame 1"):
        got.writelines(_KEY.decrypt("o", frames))
    assert len(got.getvalue()) == FRAME_BYTES


def test_a_data_key_opens_with_the_key_that_wrapped_it_and_no_other():
    old, new = os.urandom(32), os.urandom(32)
    wrapped = Keyring({"old": old}).wrap(_KEY)
    both = Keyring({"new": new, "old": old})
    assert both.unwrap("b1", wrapped) == _KEY
    assert both.current_id == "new"
    with pytest.raises(SecretError, match="'old' is needed, and only new is set"):
        Keyring({"new": new}).unwrap("b1", wrapped)
    with pytest.raises(SecretError, match="'old' is needed, and none is set"):
        Keyring({}).unwrap("b1", wrapped)
    with pytest.raises(SecretError, match="not the one that closed"):
        Keyring({"old": new}).unwrap("b1", wrapped)
    with pytest.raises(SecretError, match="another backup"):
        both.unwrap("b2", wrapped)
    with pytest.raises(SecretError):
        both.unwrap("b1", WrappedKey("old", wrapped.wrapped[:-8]))


def test_no_key_shows_in_a_representation():
    secret = b"k" * 32
    assert "kkkk" not in repr(Keyring({"id": secret})) + repr(DataKey("b", secret))


def test_a_key_of_another_length_is_refused():
    with pytest.raises(InvalidInputError, match="32 bytes"):
        Keyring({"short": b"123"})
