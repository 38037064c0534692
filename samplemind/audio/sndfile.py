"""libsndfile as a stream: WAV, AIFF, FLAC, Ogg Vorbis and Opus, MP3 and their kin.

It reads from a descriptor or from bytes, never from a path, so it can open no other file and can
not guess a raw format from a name. It reads forward only: a seek in a damaged file fails where the
samples before it are sound. Whole files are never asked for.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import soundfile
from numpy.typing import NDArray

from samplemind.audio.guards import GuardedFile
from samplemind.audio.header import Header
from samplemind.audio.outcome import AudioRejectedError, Outcome
from samplemind.audio.stream import BLOCK_FRAMES, StreamInfo

_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3"})
_BIT_DEPTHS = {
    "PCM_S8": 8,
    "PCM_U8": 8,
    "PCM_16": 16,
    "PCM_24": 24,
    "PCM_32": 32,
    "FLOAT": 32,
    "DOUBLE": 64,
    "ULAW": 8,
    "ALAW": 8,
    "ALAC_16": 16,
    "ALAC_20": 20,
    "ALAC_24": 24,
    "ALAC_32": 32,
}
_UNKNOWN_FRAMES = 2**62  # libsndfile says its largest count where a format does not tell.


class _ForwardSoundFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile is untyped.
    """A sound file that is read straight through, without the seek after each block."""

    def seekable(self) -> bool:
        return False


class SndfileStream:
    """An open libsndfile sound; see `samplemind.audio.stream.AudioStream`."""

    def __init__(self, sound: soundfile.SoundFile) -> None:
        self._sound = sound
        self._damaged = False
        depth = _BIT_DEPTHS.get(sound.subtype)
        unknown = sound.frames <= 0 or sound.frames >= _UNKNOWN_FRAMES
        self._info = StreamInfo(
            format=sound.format,
            codec=sound.subtype,
            sample_rate_hz=sound.samplerate,
            channels=sound.channels,
            claimed_frames=None if unknown else sound.frames,
            exact=depth is not None,
            bit_depth=depth,
        )

    @property
    def info(self) -> StreamInfo:
        """What libsndfile says of the sound."""
        return self._info

    @property
    def damaged(self) -> bool:
        """Whether decoding ended at an error."""
        return self._damaged

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 blocks of shape (frames, channels); see `AudioStream.blocks`."""
        frames = min(BLOCK_FRAMES, self._info.claimed_frames or BLOCK_FRAMES)
        block = np.empty((frames, self._info.channels), dtype=np.float32)
        while True:
            # What a failing call has decoded is in the buffer, but its count is not told: rows
            # that still hold the mark were not written.
            block.fill(np.nan)
            try:
                count = len(self._sound.read(frames, dtype="float32", out=block))
            except (soundfile.SoundFileError, RuntimeError):
                self._damaged = True
                count = _written_rows(block)
                if count:
                    yield block[:count]
                return
            if count == 0:
                return
            yield block[:count]


def _written_rows(block: NDArray[np.float32]) -> int:
    unwritten = np.isnan(block).any(axis=1)
    return int(unwritten.argmax()) if unwritten.any() else len(block)


@contextmanager
def open_sndfile(file: GuardedFile, header: Header) -> Iterator[SndfileStream]:
    """Open a guarded file with libsndfile.

    Raises:
        AudioRejectedError: libsndfile does not read it.
    """
    os.lseek(file.descriptor, 0, os.SEEK_SET)
    source: int | io.BytesIO = file.descriptor
    if header.vorbis_at is not None:
        source = io.BytesIO(file.read_at(*header.vorbis_at))
    try:
        sound = _ForwardSoundFile(source, closefd=False)
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
        raise AudioRejectedError(Outcome.UNREADABLE) from error
    with sound:
        if sound.format not in _FORMATS:
            raise AudioRejectedError(Outcome.UNKNOWN_FORMAT)
        yield SndfileStream(sound)
