"""A sound as it comes out of a decoder: what it says of itself, then blocks of samples.

The two decoders (`sndfile` in this process, `fallback` in a guarded child) give the same shape, so
all that follows them is written once. Nothing here decodes.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from samplemind.audio.limits import AudioLimits
from samplemind.audio.outcome import AudioRejectedError, Outcome

BLOCK_FRAMES = 65_536
_SAMPLE_BYTES = 4
_WORD = re.compile(r"[\w.,+-]{1,40}", re.ASCII)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a decoder says of a sound before any of it is decoded.

    Attributes:
        format: the container, as the decoder names it.
        codec: the encoding, as the decoder names it.
        sample_rate_hz: frames a second.
        channels: samples a frame.
        claimed_frames: None where the format does not say.
        exact: whether the claim counts frames exactly; lossy formats may be off by their padding.
        bit_depth: bits a sample, None for lossy encodings.
    """

    format: str
    codec: str
    sample_rate_hz: int
    channels: int
    claimed_frames: int | None
    exact: bool
    bit_depth: int | None = None

    @classmethod
    def from_ffmpeg(cls, raw: Mapping[str, Any]) -> "StreamInfo":
        """Make one of what `samplemind.audio.ffmpeg` says, which a hostile file may have forged.

        Raises:
            ValueError, KeyError, TypeError, OverflowError: it is not what FFmpeg says of a sound.
        """
        rate, seconds = int(raw["sample_rate_hz"]), raw["claimed_s"]
        claimed = 0 if seconds is None else int(float(seconds) * rate)
        words = (str(raw["format"]), str(raw["codec"]))
        if not all(_WORD.fullmatch(word) for word in words):
            raise ValueError("no name of a format or codec")
        return cls(
            format=words[0],
            codec=words[1],
            sample_rate_hz=rate,
            channels=int(raw["channels"]),
            claimed_frames=claimed if claimed > 0 else None,
            exact=False,
        )


class AudioStream(Protocol):
    """One open sound, read once from its start to its end."""

    @property
    def info(self) -> StreamInfo:
        """What the decoder says of it."""

    @property
    def damaged(self) -> bool:
        """Whether decoding ended at an error; known once the blocks are read."""

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 blocks of shape (frames, channels), valid until the next one.

        An error in the middle ends the blocks and sets `damaged`: what came before it is sound.
        """


def check_shape(channels: int | None, sample_rate_hz: int | None, limits: AudioLimits) -> None:
    """Refuse a number of channels or a rate outside the limits; None is not known yet."""
    if channels is not None and not 1 <= channels <= limits.max_channels:
        raise AudioRejectedError(Outcome.CHANNELS, f"{channels} of at most {limits.max_channels}")
    lowest, highest = limits.min_sample_rate_hz, limits.max_sample_rate_hz
    if sample_rate_hz is not None and not lowest <= sample_rate_hz <= highest:
        raise AudioRejectedError(
            Outcome.SAMPLE_RATE, f"{sample_rate_hz} Hz, not within {lowest} to {highest}"
        )


def check_extent(frames: int, info: StreamInfo, size_bytes: int, limits: AudioLimits) -> None:
    """Refuse a sound of this many frames if it is too dense for its file, or too long.

    Called with the claim before decoding and with the count while decoding, since a claim may lie.
    """
    decoded_bytes = frames * info.channels * _SAMPLE_BYTES
    if decoded_bytes > limits.bomb_floor_bytes and frames > size_bytes * limits.max_frames_per_byte:
        raise AudioRejectedError(
            Outcome.DECOMPRESSION_BOMB, f"{frames} frames from {size_bytes} bytes"
        )
    if frames > limits.max_duration_s * info.sample_rate_hz:
        raise AudioRejectedError(
            Outcome.TOO_LONG,
            f"{frames / info.sample_rate_hz:.0f} s of at most {limits.max_duration_s:.0f}",
        )
    if decoded_bytes > limits.max_decoded_bytes:
        raise AudioRejectedError(Outcome.TOO_LONG, f"{decoded_bytes / 2**20:.0f} MiB decoded")
