"""What is found in one open file: facts of the sound, an outcome, and measurements.

It chooses the decoder by the header, reads once, decides the outcome, and measures what is worth
measuring. Neither path nor name plays a part: what is found follows from the bytes and the limits
alone, here as in a guarded child.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samplemind.audio.confined import open_confined
from samplemind.audio.guards import GuardedFile
from samplemind.audio.header import Container, Header, read_header
from samplemind.audio.isolation import open_foreign
from samplemind.audio.limits import AudioLimits
from samplemind.audio.measure import Measurements, Sound, measure
from samplemind.audio.outcome import AudioRejectedError, Outcome
from samplemind.audio.reading import Reading, magnitude, read_sound
from samplemind.audio.sndfile import open_sndfile
from samplemind.audio.stream import AudioStream, check_shape

_WARM_UP_RATE_HZ = 44_100


@dataclass(frozen=True, slots=True)
class SoundFacts:
    """What is known of a sound once it was decoded, measured or not.

    Attributes:
        format: container, as its decoder names it.
        codec: encoding, as its decoder names it.
        bit_depth: bits a sample; None for lossy encodings.
        sample_rate_hz: frames a second.
        channels: samples a frame.
        duration_s: that could be decoded.
        peak_dbfs: of any sample; None for digital silence.
        dc_offset: largest magnitude of a channel's mean, full scale being 1.
        missing_share: of what the header promises, 0 to 1.
        nonfinite_samples: how many NaN or infinite samples were set to 0.
        flags: "dc_offset", "nonfinite", "truncated", where they hold.
    """

    format: str
    codec: str
    bit_depth: int | None
    sample_rate_hz: int
    channels: int
    duration_s: float
    peak_dbfs: float | None
    dc_offset: float
    missing_share: float
    nonfinite_samples: int
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found in one file; `measurements` is set if the outcome is a measured one."""

    outcome: Outcome
    facts: SoundFacts
    measurements: Measurements | None


def examine(file: GuardedFile, limits: AudioLimits, *, confined: bool = False) -> Examination:
    """Decode and measure one open file.

    Args:
        file: behind its guards.
        limits: bounds on the sound.
        confined: this process is the guarded child already, so every decoder runs in it.

    Raises:
        AudioRejectedError: the file is refused.
        AudioReadError: something failed that may pass.
    """
    header = read_header(file)
    check_shape(header.channels, header.sample_rate_hz, limits)
    reading = _read(file, header, limits, confined=confined)
    outcome = _judge(reading, limits)
    return Examination(
        outcome=outcome,
        facts=_state(reading, limits),
        measurements=_measure(reading, limits) if outcome.measured else None,
    )


def warm_up() -> None:
    """Load all code and tables of the analysis, so that later calls open no file."""
    noise = np.random.default_rng(0).standard_normal((2 * _WARM_UP_RATE_HZ + 1, 2)) / 8
    for rate_hz in (_WARM_UP_RATE_HZ, 48_000):
        measure(Sound(noise.astype(np.float32), rate_hz, 2.0, whole=True))


def _read(file: GuardedFile, header: Header, limits: AudioLimits, *, confined: bool) -> Reading:
    """Read with libsndfile what it knows; give FFmpeg the rest, and what libsndfile gave up on."""
    if not header.container.native:
        with _open_ffmpeg(file, header, limits, confined=confined) as stream:
            return _read_stream(stream, file, header, limits)
    try:
        with open_sndfile(file, header) as stream:
            return _read_stream(stream, file, header, limits)
    except AudioRejectedError as refusal:
        if not _worth_second_try(refusal.outcome, header.container):
            raise
        try:
            with _open_ffmpeg(file, header, limits, confined=confined) as second:
                return _read_stream(second, file, header, limits)
        except AudioRejectedError:
            raise refusal from None  # The first decoder's word is the plainer one.


def _worth_second_try(outcome: Outcome, container: Container) -> bool:
    # libsndfile says 0 frames of an Ogg file whose last page is missing.
    return outcome is Outcome.UNREADABLE or (
        outcome is Outcome.NO_FRAMES and container is Container.OGG
    )


@contextmanager
def _open_ffmpeg(
    file: GuardedFile, header: Header, limits: AudioLimits, *, confined: bool
) -> Iterator[AudioStream]:
    if confined:
        with open_confined(file.descriptor, header.container.demuxer) as stream:
            yield stream
    else:
        with open_foreign(file, header.container, limits) as stream:
            yield stream


def _read_stream(
    stream: AudioStream, file: GuardedFile, header: Header, limits: AudioLimits
) -> Reading:
    check_shape(stream.info.channels, stream.info.sample_rate_hz, limits)
    return read_sound(stream, size_bytes=file.size_bytes, present=header.present, limits=limits)


def _judge(reading: Reading, limits: AudioLimits) -> Outcome:
    if reading.duration_s < limits.min_duration_s:
        # Of so few frames a high rate leaves next to nothing in the window.
        return Outcome.SHORT if reading.peak >= _audible_from(limits) else Outcome.SILENT
    if not _audible_windows(reading, limits):
        return Outcome.SILENT
    return Outcome.TRUNCATED if reading.missing_share > 0 else Outcome.ANALYZED


def _audible_windows(reading: Reading, limits: AudioLimits) -> list[NDArray[np.float32]]:
    threshold = _audible_from(limits)
    windows = [reading.opening]
    # A file that breaks off may leave little or nothing of its middle.
    if reading.middle is not None and len(reading.middle) >= len(reading.opening):
        windows.append(reading.middle)
    return [window for window in windows if magnitude(window) >= threshold]


def _audible_from(limits: AudioLimits) -> float:
    return float(10 ** (limits.silence_dbfs / 20))


def _state(reading: Reading, limits: AudioLimits) -> SoundFacts:
    flags = {
        "dc_offset": reading.dc_offset > limits.dc_offset,
        "nonfinite": reading.nonfinite_samples > 0,
        "truncated": reading.missing_share > 0,
    }
    return SoundFacts(
        format=reading.info.format,
        codec=reading.info.codec,
        bit_depth=reading.info.bit_depth,
        sample_rate_hz=reading.info.sample_rate_hz,
        channels=reading.info.channels,
        duration_s=reading.duration_s,
        peak_dbfs=reading.peak_dbfs,
        dc_offset=reading.dc_offset,
        missing_share=reading.missing_share,
        nonfinite_samples=reading.nonfinite_samples,
        flags=tuple(name for name, holds in flags.items() if holds),
    )


def _measure(reading: Reading, limits: AudioLimits) -> Measurements:
    """Measure a sound; of a long one, tempo and key by its middle and the likeness by its start.

    A track's middle has all instruments playing, whereas two recordings are alike to the ear from
    their first seconds on.
    """
    first, *more = (
        Sound(
            samples=window,
            sample_rate_hz=reading.window_rate_hz,
            duration_s=reading.duration_s,
            whole=reading.whole,
        )
        for window in _audible_windows(reading, limits)
    )
    start = measure(first)
    if not more:
        return start
    return dataclasses.replace(
        measure(more[0]),
        blocks=start.blocks,
        embedding=start.embedding,
        embedding_version=start.embedding_version,
    )
