"""FFmpeg as a stream of this process: only for the guarded child, which is confined already."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from samplemind.audio.ffmpeg import FfmpegSound, RefusedSoundError, open_ffmpeg
from samplemind.audio.outcome import AudioRejectedError, Outcome
from samplemind.audio.stream import StreamInfo


class ConfinedStream:
    """A sound that FFmpeg decodes here; see `samplemind.audio.stream.AudioStream`."""

    def __init__(self, sound: FfmpegSound) -> None:
        self._sound = sound
        self._info = StreamInfo.from_ffmpeg(sound.info)

    @property
    def info(self) -> StreamInfo:
        """What FFmpeg says of the sound."""
        return self._info

    @property
    def damaged(self) -> bool:
        """Whether decoding ended at an error."""
        return self._sound.damaged

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 blocks of shape (frames, channels); see `AudioStream.blocks`."""
        for chunk in self._sound.chunks():
            block = np.frombuffer(bytearray(chunk), dtype=np.float32)
            if len(block):
                yield block.reshape(-1, self._info.channels)


@contextmanager
def open_confined(descriptor: int, demuxer: str) -> Iterator[ConfinedStream]:
    """Open the sound behind a descriptor with FFmpeg in this process.

    Raises:
        AudioRejectedError: there is nothing in it that can be decoded.
    """
    try:
        with open_ffmpeg(descriptor, demuxer) as sound:
            yield ConfinedStream(sound)
    except RefusedSoundError as error:
        raise AudioRejectedError(Outcome(error.reason)) from error
