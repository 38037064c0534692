"""FFmpeg (through PyAV) on a descriptor, with everything shut that is not one demuxer of audio.

FFmpeg opens whatever a file asks for: a text of 36 bytes named `.wav` makes it play another file.
So the demuxer is named by the caller and not guessed, the codecs are a closed list, references
to other files are off, and this module runs only inside the guarded child, where no descriptor can
be opened at all. It imports no numpy: the child must start quickly.
"""

import errno
import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import av
import av.logging
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer

CODECS = (
    "aac",
    "alac",
    "ape",
    "flac",
    "mp1",
    "mp1float",
    "mp2",
    "mp2float",
    "mp3",
    "mp3float",
    "opus",
    "libopus",
    "vorbis",
    "libvorbis",
    "tta",
    "wavpack",
    "wmalossless",
    "wmapro",
    "wmav1",
    "wmav2",
    "adpcm_ima_qt",
    "adpcm_ima_wav",
    "adpcm_ms",
    "gsm_ms",
    "pcm_alaw",
    "pcm_f32be",
    "pcm_f32le",
    "pcm_f64be",
    "pcm_f64le",
    "pcm_mulaw",
    "pcm_s16be",
    "pcm_s16le",
    "pcm_s24be",
    "pcm_s24le",
    "pcm_s32be",
    "pcm_s32le",
    "pcm_s8",
    "pcm_u8",
)
_NO_LENGTH = frozenset({"aac"})  # Raw AAC tells no length; FFmpeg guesses it from the bit rate.
# FFmpeg's own, and what Python says of the impossible offsets that a forged header seeks to.
_DECODING_ERRORS = (av.FFmpegError, OSError, OverflowError, ValueError)
_FAULTS_OF_THE_MACHINE = frozenset({errno.ENOMEM, errno.EIO})
_SAMPLE_BYTES = 4


class RefusedSoundError(Exception):
    """The file holds nothing to decode; `reason` is the value of an `Outcome`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class FfmpegSound:
    """The first audio stream of one container, decoded to interleaved float32."""

    def __init__(self, container: InputContainer) -> None:
        if not container.streams.audio:
            raise RefusedSoundError("rejected:no_audio_stream")
        stream = container.streams.audio[0]
        if stream.codec_context is None or stream.codec_context.name not in CODECS:
            raise RefusedSoundError("rejected:unknown_format")
        stream.codec_context.thread_count = 1
        self.damaged = False
        self._frames = container.decode(stream)
        self._first = self._next_frame()
        if self._first is None:
            raise RefusedSoundError("rejected:unreadable" if self.damaged else "rejected:no_frames")
        self._channels = self._first.layout.nb_channels
        seconds = None
        if stream.duration is not None and stream.time_base is not None:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            seconds = container.duration / av.time_base
        demuxer = container.format.name
        # What a decoder says of itself counts from its first frame: HE-AAC doubles the rate.
        self.info: dict[str, Any] = {
            "format": demuxer.split(",")[0],
            "codec": stream.codec_context.name,
            "sample_rate_hz": self._first.sample_rate,
            "channels": self._channels,
            "claimed_s": None if demuxer in _NO_LENGTH else seconds,
        }

    def chunks(self) -> Iterator[bytes]:
        """Yield interleaved float32 samples in the machine's byte order."""
        resampler = AudioResampler(format="flt")
        frame = self._first
        while frame is not None:
            try:
                converted = resampler.resample(frame)
            except _DECODING_ERRORS as error:  # The shape changed in the middle.
                _raise_if_machine_failed(error)
                self.damaged = True
                return
            for part in converted:
                yield bytes(part.planes[0])[: part.samples * self._channels * _SAMPLE_BYTES]
            frame = self._next_frame()

    def _next_frame(self) -> AudioFrame | None:
        try:
            return next(self._frames, None)
        except _DECODING_ERRORS as error:
            _raise_if_machine_failed(error)
            self.damaged = True
            return None


def _raise_if_machine_failed(error: Exception) -> None:
    """Let a want of memory or a failing disk end the process: it says nothing about the file."""
    if getattr(error, "errno", None) in _FAULTS_OF_THE_MACHINE:
        raise error


def warm_up() -> None:
    """Decode a tiny sound of our own: PyAV imports parts of itself at their first use."""
    wav = struct.pack(
        "<4sI4s4sIHHIIHH4sI8s",
        *(b"RIFF", 44, b"WAVE", b"fmt ", 16, 1, 1, 8_000, 16_000, 2, 16, b"data", 8, bytes(8)),
    )
    with _open(io.BytesIO(wav), "wav") as sound:
        for _ in sound.chunks():
            pass


@contextmanager
def open_ffmpeg(descriptor: int, demuxer: str) -> Iterator[FfmpegSound]:
    """Open the sound behind a descriptor with exactly this demuxer.

    Raises:
        RefusedSoundError: there is nothing that can be decoded.
    """
    with io.FileIO(descriptor, closefd=False) as source:
        source.seek(0)
        with _open(source, demuxer) as sound:
            yield sound


@contextmanager
def _open(source: BinaryIO | io.FileIO, demuxer: str) -> Iterator[FfmpegSound]:
    av.logging.set_level(av.logging.PANIC)
    options = {
        "format_whitelist": demuxer,
        "codec_whitelist": ",".join(CODECS),
        "protocol_whitelist": "",
    }
    if demuxer == "mov":
        options["enable_drefs"] = "0"
    try:
        container = av.open(
            source, mode="r", format=demuxer, options=options, metadata_errors="ignore"
        )
    except _DECODING_ERRORS as error:
        _raise_if_machine_failed(error)
        raise RefusedSoundError("rejected:unreadable") from error
    with container:
        yield FfmpegSound(container)
