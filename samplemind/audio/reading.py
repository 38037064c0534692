"""One pass over a stream: the windows that are measured, and what is true of the whole sound.

Invariant: at most two windows are held, whatever the length of the sound; what lies outside them
streams by and is only counted. The samples handed on are finite and keep to the limit of amplitude.

A rate above `HIGHEST_HELD_RATE_HZ` is brought down to the analysis's own while it streams by, since
nothing above that is measured and 192 kHz would take four times the memory.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import soxr
from numpy.typing import NDArray

from samplemind.audio.limits import AudioLimits
from samplemind.audio.outcome import AudioRejectedError, Outcome
from samplemind.audio.spectrum import ANALYSIS_RATE_HZ
from samplemind.audio.stream import AudioStream, StreamInfo, check_extent

OPENING_S = 30.0
OPENING_SHARE = 1 / 3  # of a window's samples at most, which many channels reach
HIGHEST_HELD_RATE_HZ = 48_000
_LOSSY_SLACK_S = 0.1  # Encoders pad, and decoders may or may not take the padding away.
_EXACT_SLACK_SHARE = 0.0005


@dataclass(frozen=True, slots=True)
class Reading:
    """What one pass over a sound gave.

    Attributes:
        info: what the decoder said of it.
        opening: float32, shape (frames, channels): the start, or all of it if `whole`.
        middle: the window around the middle of a sound longer than one window, else None.
        window_rate_hz: frames a second of both windows.
        whole: `opening` holds every frame and none is missing.
        frames: how many were decoded.
        missing_share: of the frames that were promised, 0 to 1.
        peak: the largest magnitude.
        dc_offset: the largest magnitude of any channel's mean.
        nonfinite_samples: how many were NaN or infinite; they were set to 0.
    """

    info: StreamInfo
    opening: NDArray[np.float32]
    middle: NDArray[np.float32] | None
    window_rate_hz: int
    whole: bool
    frames: int
    missing_share: float
    peak: float
    dc_offset: float
    nonfinite_samples: int

    @property
    def duration_s(self) -> float:
        """Seconds that were decoded."""
        return self.frames / self.info.sample_rate_hz

    @property
    def peak_dbfs(self) -> float | None:
        """The peak against full scale; None for digital silence."""
        return 20 * math.log10(self.peak) if self.peak > 0 else None


class _Window:
    """The frames of a stream between two positions, at a rate that is worth holding."""

    def __init__(self, start: int, length: int, info: StreamInfo, max_amplitude: float) -> None:
        rate, held_rate = info.sample_rate_hz, _held_rate_hz(info)
        held = -(-length * held_rate // rate)
        # Pages that are never written take no memory, so a generous claim costs none.
        self._samples = np.empty((held, info.channels), dtype=np.float32)
        self._filled = 0
        self._start, self._length = start, length
        self._max_amplitude = max_amplitude
        self._resampler = (
            None
            if held_rate == rate
            else soxr.ResampleStream(rate, held_rate, info.channels, dtype="float32", quality="MQ")
        )
        self.taken = 0

    def offer(self, block: NDArray[np.float32], position: int) -> None:
        """Take from a block what lies in the window; `position` is that of its first frame."""
        first = max(self._start + self.taken - position, 0)
        wanted = block[first : first + self._length - self.taken]
        if len(wanted):
            self.taken += len(wanted)
            self._hold(wanted if self._resampler is None else self._resample(wanted))

    def close(self) -> NDArray[np.float32]:
        """Return the window once the stream is read."""
        if self._resampler is not None and self.taken:
            self._hold(self._resample(self._samples[:0], last=True))
        return self._samples[: self._filled]

    def _resample(self, part: NDArray[np.float32], *, last: bool = False) -> NDArray[np.float32]:
        assert self._resampler is not None  # noqa: S101  # Both callers have looked.
        resampled: NDArray[np.float32] = self._resampler.resample_chunk(
            np.ascontiguousarray(part), last=last
        )
        # Around a full step the filter swings a little further than its input.
        return np.clip(resampled, -self._max_amplitude, self._max_amplitude)

    def _hold(self, part: NDArray[np.float32]) -> None:
        part = part[: len(self._samples) - self._filled]
        self._samples[self._filled : self._filled + len(part)] = part
        self._filled += len(part)


def magnitude(block: NDArray[np.float32]) -> float:
    """Return the largest magnitude, or NaN if there is one; it makes no copy of the block."""
    return max(float(block.max()), -float(block.min()))


@dataclass
class _Totals:
    channels: int
    max_amplitude: float
    frames: int = 0
    peak: float = 0.0
    nonfinite: int = 0
    sums: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.sums = np.zeros(self.channels)

    def add(self, block: NDArray[np.float32]) -> None:
        """Count one block; samples of it that are not finite become 0."""
        peak = magnitude(block)
        if not math.isfinite(peak):
            bad = ~np.isfinite(block)
            self.nonfinite += int(bad.sum())
            block[bad] = 0.0
            peak = magnitude(block)
        if peak > self.max_amplitude:
            raise AudioRejectedError(Outcome.RANGE, f"a sample of {peak:.3g}")
        self.peak = max(self.peak, peak)
        # A product sums columns ten times as fast as sum(axis=0), and a block is short enough for
        # float32 to hold its sum.
        self.sums += np.ones(len(block), dtype=np.float32) @ block
        self.frames += len(block)


def read_sound(
    stream: AudioStream, *, size_bytes: int, present: float, limits: AudioLimits
) -> Reading:
    """Read a stream to its end.

    Args:
        stream: open, not read yet.
        size_bytes: of the file on disk.
        present: share of the claimed audio bytes that the file has; see `header.Header`.
        limits: bounds on length, level and windows.

    Raises:
        AudioRejectedError: the sound is too long, out of range, or there is none.
    """
    info = stream.info
    if info.claimed_frames is not None:
        check_extent(info.claimed_frames, info, size_bytes, limits)
    opening, middle = _plan_windows(info, limits)
    totals = _Totals(info.channels, limits.max_amplitude)
    for block in stream.blocks():
        position = totals.frames
        check_extent(position + len(block), info, size_bytes, limits)
        totals.add(block)
        for window in filter(None, (opening, middle)):
            window.offer(block, position)
    if totals.frames == 0:
        raise AudioRejectedError(Outcome.UNREADABLE if stream.damaged else Outcome.NO_FRAMES)
    missing = _missing_share(info, totals.frames, present, stream.damaged)
    return Reading(
        info=info,
        opening=opening.close(),
        middle=middle.close() if middle is not None and middle.taken else None,
        window_rate_hz=_held_rate_hz(info),
        whole=opening.taken == totals.frames and missing == 0,
        frames=totals.frames,
        missing_share=missing,
        peak=totals.peak,
        dc_offset=float(np.abs(totals.sums).max()) / totals.frames,
        nonfinite_samples=totals.nonfinite,
    )


def _plan_windows(info: StreamInfo, limits: AudioLimits) -> tuple[_Window, _Window | None]:
    """One window if the sound fits in it; else its opening and the window around its middle."""
    rate, held_rate = info.sample_rate_hz, _held_rate_hz(info)
    longest = limits.window_frames(held_rate, info.channels) * rate // held_rate
    claimed = info.claimed_frames
    if claimed is None or claimed <= longest:
        return _Window(0, min(longest, claimed or longest), info, limits.max_amplitude), None
    shortened = int(OPENING_SHARE * limits.window_samples / info.channels) * rate // held_rate
    opening = max(1, min(longest, int(OPENING_S * rate), shortened))
    middle = (claimed - longest) // 2
    return (
        _Window(0, opening, info, limits.max_amplitude),
        _Window(middle, longest, info, limits.max_amplitude),
    )


def _held_rate_hz(info: StreamInfo) -> int:
    return ANALYSIS_RATE_HZ if info.sample_rate_hz > HIGHEST_HELD_RATE_HZ else info.sample_rate_hz


def _missing_share(info: StreamInfo, frames: int, present: float, damaged: bool) -> float:
    """Return the share of a sound that is lost; 0 when all that differs is an encoder's padding."""
    claimed = info.claimed_frames or 0
    lost = max(0, claimed - frames)
    slack = claimed * _EXACT_SLACK_SHARE if info.exact else _LOSSY_SLACK_S * info.sample_rate_hz
    share = lost / claimed if claimed and (lost > slack or damaged) else 0.0
    if damaged and share == 0.0:
        share = min(1.0, 1.0 / (frames + 1))  # Something is lost, though no count says how much.
    if 1.0 - present > _EXACT_SLACK_SHARE:
        share = 1.0 - present * (1.0 - share)
    return share
