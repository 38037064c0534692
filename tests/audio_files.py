"""Good and bad audio files, made in code: what a library's folders really hold, and worse.

Each maker returns the bytes of one file, the same at every call. `BAD_FILES` pairs them with the
one outcome that the analysis must record.
"""

import functools
import io
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import av.logging
import numpy as np
import soundfile
from numpy.typing import NDArray

from samplemind.audio.outcome import Outcome

RATE_HZ = 44_100
Floats = NDArray[np.float32]

av.logging.set_level(av.logging.PANIC)


@contextmanager
def acting_as_nobody() -> Iterator[None]:
    """Root may read everything, so as root a block that must not acts as another user."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def tone(duration_s: float = 1.0, *, rate_hz: int = RATE_HZ, channels: int = 1) -> Floats:
    """A decaying A3 in a little noise, shape (frames, channels)."""
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    noise = np.random.default_rng(7).standard_normal(len(time_s)) * 0.02
    wave = 0.5 * np.sin(2 * np.pi * 220 * time_s) * np.exp(-time_s) + noise
    return np.repeat(wave.astype(np.float32)[:, None], channels, axis=1)


def encode(
    samples: Floats,
    rate_hz: int = RATE_HZ,
    *,
    container: str = "WAV",
    codec: str | None = "PCM_16",
) -> bytes:
    """Encode samples with libsndfile."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format=container, subtype=codec)
    return buffer.getvalue()


def encode_with_ffmpeg(
    samples: Floats, container: str, codec: str, *, fast_start: bool = False
) -> bytes:
    """Encode samples at `RATE_HZ` in what libsndfile does not write: M4A, WMA, AAC, …"""
    layout = "stereo" if samples.shape[1] == 2 else "mono"
    options = {"movflags": "faststart"} if fast_start else {}
    with tempfile.NamedTemporaryFile() as file:
        with av.open(file.name, "w", format=container, options=options) as output:
            stream = output.add_stream(codec, rate=RATE_HZ)
            stream.bit_rate = 128_000
            stream.layout = layout
            context = stream.codec_context
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples.T), format="fltp", layout=layout
            )
            frame.sample_rate = RATE_HZ
            resampler = av.AudioResampler(
                format=context.format or "fltp",
                layout=layout,
                rate=RATE_HZ,
                frame_size=context.frame_size or 1024,
            )
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                part.pts = None
                output.mux(stream.encode(part))
            output.mux(stream.encode(None))
        return Path(file.name).read_bytes()


@functools.cache
def wav() -> bytes:
    return encode(tone(channels=2))


@functools.cache
def flac() -> bytes:
    return encode(tone(2.0), container="FLAC")


@functools.cache
def ogg() -> bytes:
    return encode(_noise(10.0), container="OGG", codec="VORBIS")


@functools.cache
def opus() -> bytes:
    return encode(_noise(10.0), 48_000, container="OGG", codec="OPUS")


@functools.cache
def mp3() -> bytes:
    return encode(tone(2.0), container="MP3", codec=None)


@functools.cache
def m4a() -> bytes:
    return encode_with_ffmpeg(tone(channels=2), "ipod", "aac", fast_start=True)


@functools.cache
def wma() -> bytes:
    return encode_with_ffmpeg(tone(channels=2), "asf", "wmav2")


def vorbis_in_wav() -> bytes:
    """What some encoders of the nineties wrote: RIFF outside, an Ogg stream inside."""
    data = b"\0\0" + ogg()
    format_chunk = struct.pack("<HHIIHHH", 0x674F, 1, RATE_HZ, 9_000, 1, 16, 0)
    return _riff((b"fmt ", format_chunk), (b"data", data))


def _noise(duration_s: float) -> Floats:
    noise = np.random.default_rng(3).standard_normal((round(duration_s * RATE_HZ), 1))
    return (noise * 0.1).astype(np.float32)


def _riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body


def pcm_wav(
    data: bytes, *, channels: int = 1, rate_hz: int = RATE_HZ, claimed: int | None = None
) -> bytes:
    """A 16-bit WAV whose header says whatever it is told to."""
    frame = channels * 2
    header = struct.pack(
        "<HHIIHH", 1, channels, rate_hz, rate_hz * frame & 0xFFFFFFFF, frame & 0xFFFF, 16
    )
    content = bytearray(_riff((b"fmt ", header), (b"data", data)))
    if claimed is not None:
        content[40:44] = struct.pack("<I", claimed)
    return bytes(content)


def _id3(length: int) -> bytes:
    return b"ID3\x03\0\0" + bytes((0, 0, length >> 7, length & 0x7F)) + bytes(length)


def _wma_with_impossible_offset() -> bytes:
    """An object whose length is wrong, so that the next one is sought at no offset there is."""
    content = bytearray(wma())
    content[46] = 255
    return bytes(content)


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _float_wav(values: list[float], codec: str = "FLOAT") -> bytes:
    samples = tone(0.5).astype(np.float64 if codec == "DOUBLE" else np.float32)
    samples[1000 : 1000 + len(values), 0] = values
    return encode(samples, codec=codec)


def _flac_claiming(frames: int) -> bytes:
    content = bytearray(flac())
    field = int.from_bytes(content[18:26], "big")
    field = field >> 36 << 36 | frames
    content[18:26] = field.to_bytes(8, "big")
    return bytes(content)


@functools.cache
def _silent_flac(duration_s: int, rate_hz: int) -> bytes:
    buffer = io.BytesIO()
    block = np.zeros(rate_hz * 60, dtype=np.int16)
    with soundfile.SoundFile(buffer, "w", rate_hz, 1, "PCM_16", format="FLAC") as sound:
        for _ in range(duration_s // 60):
            sound.write(block)
    return buffer.getvalue()


def _flip_bytes(content: bytes, start: int, count: int) -> bytes:
    flipped = bytearray(content)
    for position in np.random.default_rng(1).integers(start, len(content), count):
        flipped[position] ^= 0xFF
    return bytes(flipped)


def _corrupt_middle(content: bytes) -> bytes:
    middle = len(content) // 2
    noise = np.random.default_rng(2).bytes(2000)
    return content[:middle] + noise + content[middle + 2000 :]


def _png() -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + bytes(8) for _ in range(8)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("kick.wav", wav())
    return buffer.getvalue()


@dataclass(frozen=True)
class MadeFile:
    """A file's name, how to make its bytes, and the outcome it must have."""

    name: str
    content: Callable[[], bytes]
    outcome: Outcome


GOOD_FILES = tuple(
    MadeFile(name, content, Outcome.ANALYZED)
    for name, content in (
        ("pcm8.wav", lambda: encode(tone(), codec="PCM_U8")),
        ("pcm16.wav", wav),
        ("pcm24.wav", lambda: encode(tone(), codec="PCM_24")),
        ("pcm32.wav", lambda: encode(tone(), codec="PCM_32")),
        ("float32.wav", lambda: encode(tone(), codec="FLOAT")),
        ("float64.wav", lambda: encode(tone(), codec="DOUBLE")),
        ("ima_adpcm.wav", lambda: encode(tone(), codec="IMA_ADPCM")),
        ("eight_channels.wav", lambda: encode(tone(channels=8))),
        ("8_khz.wav", lambda: encode(tone(rate_hz=8_000), 8_000)),
        ("192_khz.wav", lambda: encode(tone(rate_hz=192_000), 192_000)),
        ("sound.aiff", lambda: encode(tone(), container="AIFF")),
        ("sound.caf", lambda: encode(tone(), container="CAF")),
        ("sound.w64", lambda: encode(tone(), container="W64")),
        ("sound.rf64", lambda: encode(tone(), container="RF64")),
        ("sound.flac", flac),
        ("sound.ogg", ogg),
        ("sound.opus", opus),
        ("sound.mp3", mp3),
        ("mp3_named.wav", mp3),
        ("wav_named.mp3", wav),
        ("ogg_named.wav", ogg),
        ("no_extension", wav),
        ("vorbis_in_wav.ogg", vorbis_in_wav),
        ("streamed_length.wav", lambda: pcm_wav(wav()[44:], channels=2, claimed=0xFFFFFFFF)),
        ("chunk_after_data.wav", lambda: wav() + b"LIST\xff\xff\0\0INFO"),
        ("sound.m4a", m4a),
        ("sound.wma", wma),
        ("sound.aac", lambda: encode_with_ffmpeg(tone(), "adts", "aac")),
        ("alac.m4a", lambda: encode_with_ffmpeg(tone(), "ipod", "alac")),
        ("sound.wv", lambda: encode_with_ffmpeg(tone(), "wv", "wavpack")),
        ("m4a_named.wav", m4a),
        ("tagged.mp3", lambda: _id3(500) + mp3()),
        ("tagged.flac", lambda: _id3(500) + flac()),
        ("tagged.wav", lambda: _id3(500) + wav()),
    )
)

BAD_FILES = tuple(
    MadeFile(*row)
    for row in (
        ("empty.wav", bytes, Outcome.EMPTY),
        ("ten_bytes.wav", lambda: wav()[:10], Outcome.TOO_SMALL),
        ("cut_header.wav", lambda: wav()[:30] + bytes(20), Outcome.UNREADABLE),
        ("riff_only.wav", lambda: wav()[:12] + bytes(40), Outcome.UNREADABLE),
        ("text.wav", lambda: b"This is not audio, it only says so. " * 5, Outcome.UNKNOWN_FORMAT),
        ("picture.wav", _png, Outcome.UNKNOWN_FORMAT),
        ("archive.wav", _zip, Outcome.UNKNOWN_FORMAT),
        (
            "random.wav",
            lambda: np.random.default_rng(5).bytes(4096),
            Outcome.UNKNOWN_FORMAT,
        ),
        ("random_after_magic.flac", lambda: b"fLaC" + bytes(range(256)) * 4, Outcome.UNREADABLE),
        ("mpeg_sync_then_text.mp3", lambda: b"\xff\xfb\x90\0" + b"la " * 99, Outcome.UNREADABLE),
        ("no_frames.wav", lambda: pcm_wav(b""), Outcome.NO_FRAMES),
        ("unfinished.wav", lambda: pcm_wav(wav()[44:], claimed=0), Outcome.NO_FRAMES),
        ("cut.wav", lambda: _half(wav()), Outcome.TRUNCATED),
        ("cut.aiff", lambda: _half(encode(tone(), container="AIFF")), Outcome.TRUNCATED),
        ("cut.caf", lambda: _half(encode(tone(), container="CAF")), Outcome.TRUNCATED),
        ("cut.rf64", lambda: _half(encode(tone(), container="RF64")), Outcome.TRUNCATED),
        ("cut.mp3", lambda: _half(mp3()), Outcome.TRUNCATED),
        ("corrupt_middle.mp3", lambda: _corrupt_middle(mp3()), Outcome.TRUNCATED),
        ("cut.flac", lambda: _half(flac()), Outcome.TRUNCATED),
        ("flipped.flac", lambda: _flip_bytes(flac(), 30_000, 40), Outcome.TRUNCATED),
        ("cut.ogg", lambda: _half(ogg()), Outcome.TRUNCATED),
        ("cut_in_headers.ogg", lambda: ogg()[:3000], Outcome.UNREADABLE),
        ("cut.opus", lambda: _half(opus()), Outcome.TRUNCATED),
        ("cut.m4a", lambda: _half(m4a()), Outcome.TRUNCATED),
        (
            "index_lost.m4a",
            lambda: _half(encode_with_ffmpeg(tone(), "ipod", "aac")),
            Outcome.UNREADABLE,
        ),
        ("impossible_offset.wma", _wma_with_impossible_offset, Outcome.UNREADABLE),
        ("claims_2_to_36.flac", lambda: _flac_claiming(2**36 - 1), Outcome.DECOMPRESSION_BOMB),
        (
            "claims_4_gib.wav",
            lambda: pcm_wav(wav()[44:], claimed=0xFFFFFFF0),
            Outcome.TRUNCATED,
        ),
        ("claims_4_gib_cut.wav", lambda: pcm_wav(b"", claimed=0xFFFFFFF0), Outcome.NO_FRAMES),
        ("channels_65535.wav", lambda: pcm_wav(wav()[44:], channels=65_535), Outcome.CHANNELS),
        ("channels_0.wav", lambda: pcm_wav(wav()[44:], channels=0), Outcome.CHANNELS),
        ("channels_17.wav", lambda: encode(tone(0.1, channels=17)), Outcome.CHANNELS),
        ("rate_0.wav", lambda: pcm_wav(wav()[44:], rate_hz=0), Outcome.SAMPLE_RATE),
        (
            "rate_2e9.wav",
            lambda: pcm_wav(wav()[44:], rate_hz=2_000_000_000),
            Outcome.SAMPLE_RATE,
        ),
        ("nan.wav", lambda: _float_wav([np.nan] * 3), Outcome.ANALYZED),
        ("inf.wav", lambda: _float_wav([np.inf, -np.inf]), Outcome.ANALYZED),
        (
            "all_nan.wav",
            lambda: encode(np.full((RATE_HZ, 1), np.nan, np.float32), codec="FLOAT"),
            Outcome.SILENT,
        ),
        ("huge_value.wav", lambda: _float_wav([1e30]), Outcome.RANGE),
        ("beyond_float32.wav", lambda: _float_wav([1e300], "DOUBLE"), Outcome.ANALYZED),
        ("integer_scale.wav", lambda: encode(tone() * 32_768, codec="FLOAT"), Outcome.RANGE),
        ("silent.flac", lambda: _silent_flac(60, 44_100), Outcome.SILENT),
        ("silent_2_hours.flac", lambda: _silent_flac(7_200, 8_000), Outcome.DECOMPRESSION_BOMB),
        ("silence.wav", lambda: encode(np.zeros((RATE_HZ, 1), np.float32)), Outcome.SILENT),
        ("whisper.wav", lambda: encode(tone() * 1e-4, codec="FLOAT"), Outcome.SILENT),
        (
            "constant.wav",
            lambda: encode(np.full((RATE_HZ, 1), 0.5, np.float32)),
            Outcome.ANALYZED,
        ),
        ("one_sample.wav", lambda: encode(np.full((1, 1), 0.5, np.float32)), Outcome.SHORT),
        ("100_samples.wav", lambda: encode(tone()[:100]), Outcome.SHORT),
        ("video_only.mp4", lambda: _video_without_sound(), Outcome.NO_AUDIO_STREAM),
        ("codec_of_nobody.wav", lambda: _riff_with_codec(0x1234), Outcome.UNREADABLE),
    )
)


def _riff_with_codec(tag: int) -> bytes:
    header = struct.pack("<HHIIHH", tag, 1, RATE_HZ, RATE_HZ * 2, 2, 16)
    return _riff((b"fmt ", header), (b"data", wav()[44:2044]))


def _video_without_sound() -> bytes:
    with tempfile.NamedTemporaryFile() as file:
        with av.open(file.name, "w", format="mp4") as output:
            stream = output.add_stream("mpeg4", rate=10)
            stream.width = stream.height = 32
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        return Path(file.name).read_bytes()
