"""What the first bytes of a file say: which format it is, and how much it claims to hold.

The name of the file is never looked at. Only formats listed here are handed to a decoder, each to
the one decoder that is meant for it, so no decoder guesses. Nothing here decodes.

Sources: Multimedia Programming Interface and Data Specifications 1.0 (RIFF), EBU Tech 3306 (RF64),
AIFF 1.3; magic numbers as in each format's own specification.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from samplemind.audio.guards import GuardedFile
from samplemind.audio.outcome import AudioRejectedError, Outcome

_HEAD_BYTES = 64
_MAX_CHUNKS = 256
_OGG_PAGE_BYTES = 27 + 255 + 255 * 255
_UNKNOWN_SIZES = frozenset({0, 0xFFFF_FFFF, 0x7FFF_F000})  # What encoders write to a pipe.
_VORBIS_TAGS = frozenset({0x674F, 0x6750, 0x6751, 0x676F, 0x6770, 0x6771})
_W64_GUID = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_ASF_GUID = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")


class Container(StrEnum):
    """A file format that is read here."""

    WAV = "wav"
    RF64 = "rf64"
    W64 = "w64"
    AIFF = "aiff"
    AU = "au"
    CAF = "caf"
    FLAC = "flac"
    OGG = "ogg"
    MP3 = "mp3"
    MP4 = "mp4"
    ASF = "asf"
    AAC = "aac"
    MATROSKA = "matroska"
    WAVPACK = "wavpack"
    APE = "ape"
    TTA = "tta"

    @property
    def native(self) -> bool:
        """Whether libsndfile reads it, in this process."""
        return self not in _FOREIGN

    @property
    def demuxer(self) -> str:
        """FFmpeg's name of the one demuxer that may open it."""
        return _DEMUXERS.get(self, self.value)


_FOREIGN = frozenset(
    {
        Container.MP4,
        Container.ASF,
        Container.AAC,
        Container.MATROSKA,
        Container.WAVPACK,
        Container.APE,
        Container.TTA,
    }
)
_DEMUXERS = {Container.MP4: "mov", Container.RF64: "wav", Container.WAVPACK: "wv"}
_MAGIC = (
    (b"fLaC", Container.FLAC),
    (b"OggS", Container.OGG),
    (b"caff", Container.CAF),
    (b".snd", Container.AU),
    (_W64_GUID, Container.W64),
    (_ASF_GUID, Container.ASF),
    (b"\x1aE\xdf\xa3", Container.MATROSKA),
    (b"wvpk", Container.WAVPACK),
    (b"MAC ", Container.APE),
    (b"TTA1", Container.TTA),
)
_FORMS = {
    (b"RIFF", b"WAVE"): Container.WAV,
    (b"RF64", b"WAVE"): Container.RF64,
    (b"BW64", b"WAVE"): Container.RF64,
    (b"FORM", b"AIFF"): Container.AIFF,
    (b"FORM", b"AIFC"): Container.AIFF,
}


@dataclass(frozen=True, slots=True)
class Header:
    """What the header says, as far as it can be known without a decoder.

    Attributes:
        container: the format by its magic bytes.
        channels: None where only the decoder can tell.
        sample_rate_hz: None where only the decoder can tell.
        present: share of the claimed audio bytes that the file really has, 0 to 1. libsndfile
            trims its own claim to the file, so a WAV that was cut shows nowhere else.
        vorbis_at: offset and length of a Vorbis stream wrapped in a WAV, which needs unwrapping.
    """

    container: Container
    channels: int | None = None
    sample_rate_hz: int | None = None
    present: float = 1.0
    vorbis_at: tuple[int, int] | None = None


def read_header(file: GuardedFile) -> Header:
    """Tell the format of an open file by its content.

    Raises:
        AudioRejectedError: it is no format that is read here.
    """
    head = file.read_at(0, _HEAD_BYTES)
    container = sniff(head)
    if container is None:
        tagged = _behind_id3(file, head)
        if tagged is None:
            raise AudioRejectedError(Outcome.UNKNOWN_FORMAT)
        return Header(tagged)
    if container in (Container.WAV, Container.RF64):
        return _read_riff(file, container)
    if container is Container.AIFF:
        return _read_aiff(file)
    if container is Container.CAF:
        return Header(container, present=_caf_present(file))
    if container is Container.OGG:
        return Header(container, present=_ogg_present(file))
    return Header(container)


def sniff(head: bytes) -> Container | None:
    """Return the format that these first bytes (at least 16) announce, or None."""
    form = _FORMS.get((head[:4], head[8:12]))
    if form is not None:
        return form
    for magic, container in _MAGIC:
        if head.startswith(magic):
            return container
    if head[4:8] == b"ftyp":
        return Container.MP4
    return _sniff_mpeg(head)


def _sniff_mpeg(head: bytes) -> Container | None:
    """Tell MPEG audio from ADTS by the frame header (ISO 11172-3 §2.4.1.3, ISO 13818-7 §6.2)."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    layer = head[1] >> 1 & 3
    if layer == 0:
        return Container.AAC if head[1] & 0xF0 == 0xF0 else None
    version_reserved = head[1] >> 3 & 3 == 1
    bitrate_bad = head[2] >> 4 == 15
    rate_reserved = head[2] >> 2 & 3 == 3
    return None if version_reserved or bitrate_bad or rate_reserved else Container.MP3


def _behind_id3(file: GuardedFile, head: bytes) -> Container | None:
    """Return the format after an ID3v2 tag, which precedes MP3 and sometimes others."""
    if not head.startswith(b"ID3") or len(head) < 10:
        return None
    length = 0
    for byte in head[6:10]:
        length = length << 7 | byte & 0x7F
    return sniff(file.read_at(10 + length, _HEAD_BYTES)) or Container.MP3


class _Chunk(NamedTuple):
    name: bytes
    start: int
    size: int


def _chunks(file: GuardedFile, order: str) -> Iterator[_Chunk]:
    """Walk the chunks of a RIFF (order "<") or IFF (order ">") file, a bounded number of them."""
    offset = 12
    for _ in range(_MAX_CHUNKS):
        raw = file.read_at(offset, 8)
        if len(raw) < 8:
            return
        name, size = struct.unpack(f"{order}4sI", raw)
        yield _Chunk(name, offset + 8, size)
        offset += 8 + size + (size & 1)


def _read_riff(file: GuardedFile, container: Container) -> Header:
    channels = rate = tag = None
    long_size = 0
    for chunk in _chunks(file, "<"):
        body = file.read_at(chunk.start, 28)
        if chunk.name == b"ds64" and len(body) >= 16:
            long_size = struct.unpack("<Q", body[8:16])[0]
        elif chunk.name == b"fmt " and len(body) >= 16:
            tag, channels, rate = struct.unpack("<HHI", body[:8])
        elif chunk.name == b"data":
            size = long_size if container is Container.RF64 and long_size else chunk.size
            here = max(0, file.size_bytes - chunk.start)
            held = min(size, here)
            vorbis = _find_vorbis(body, chunk.start, held) if tag in _VORBIS_TAGS else None
            return Header(container, channels, rate, _present(size, here), vorbis)
    return Header(container, channels, rate)


def _find_vorbis(body: bytes, start: int, length: int) -> tuple[int, int] | None:
    # Some encoders put a few bytes of their own in front of the stream.
    shift = body.find(b"OggS")
    return (start + shift, length - shift) if shift >= 0 else None


def _read_aiff(file: GuardedFile) -> Header:
    channels: int | None = None
    present = 1.0
    for chunk in _chunks(file, ">"):
        if chunk.name == b"COMM":
            body = file.read_at(chunk.start, 2)
            channels = struct.unpack(">H", body)[0] if len(body) == 2 else None
        elif chunk.name == b"SSND":
            present = _present(chunk.size, max(0, file.size_bytes - chunk.start))
    return Header(Container.AIFF, channels, None, present)


def _caf_present(file: GuardedFile) -> float:
    offset = 8
    for _ in range(_MAX_CHUNKS):
        raw = file.read_at(offset, 12)
        if len(raw) < 12:
            break
        name, size = struct.unpack(">4sq", raw)
        if name == b"data":
            return _present(size, file.size_bytes - offset - 12) if size > 0 else 1.0
        offset += 12 + max(size, 0)
    return 1.0


def _ogg_present(file: GuardedFile) -> float:
    """Return less than 1 if the last page is cut (RFC 3533 §6); no length is written anywhere."""
    tail_at = max(0, file.size_bytes - _OGG_PAGE_BYTES)
    tail = file.read_at(tail_at, _OGG_PAGE_BYTES)
    page = tail[tail.rfind(b"OggS") :] if b"OggS" in tail else b""
    if len(page) < 27:
        return 1.0
    table = page[27 : 27 + page[26]]
    whole = len(table) == page[26] and len(page) >= 27 + len(table) + sum(table)
    return 1.0 if whole else (file.size_bytes - len(page)) / file.size_bytes


def _present(claimed: int, here: int) -> float:
    return 1.0 if claimed in _UNKNOWN_SIZES else min(1.0, here / claimed)
