"""What an audio file may be, and how much of it is looked at.

The defaults are the platform's; `settings.audio` may narrow or widen them. Every bound that guards
memory is a bound on what is held at once, so a wider duration costs time and never memory.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """Bounds on one file, in the order in which they are checked.

    Attributes:
        min_size_bytes: anything smaller cannot hold a header (a WAV header has 44 bytes).
        max_size_bytes: the largest file that is opened.
        max_channels: more than this is refused.
        min_sample_rate_hz: the slowest rate, inclusive.
        max_sample_rate_hz: the fastest rate, inclusive.
        max_duration_s: the longest sound, decoded from end to end in blocks.
        max_decoded_bytes: the most float32 data that a file may expand to while it streams by.
        max_frames_per_byte: more decoded frames than this for each byte on disk is a
            decompression bomb; a 64 kb/s MP3 has 5.5, WAV at most 1.
        bomb_floor_bytes: what decodes to less than this is never called a bomb, because ten
            seconds of digital silence in FLAC are as dense as two hours of it.
        window_s: how much of a long file is held and measured.
        window_samples: most samples (frames times channels) held in one window, so that many
            channels shorten the window instead of growing the process.
        min_duration_s: shorter sounds have no features worth measuring.
        max_amplitude: samples beyond this are no audio on a scale of one.
        silence_dbfs: a peak below this is silence.
        dc_offset: a mean beyond this is flagged.
        child_memory_bytes: address space of the guarded child.
        child_cpu_s: processor time of the guarded child.
        child_wall_s: time after which the guarded child is given up.
    """

    min_size_bytes: int = 44
    max_size_bytes: int = 512 * 2**20
    max_channels: int = 16
    min_sample_rate_hz: int = 4_000
    max_sample_rate_hz: int = 384_000
    max_duration_s: float = 7_200.0
    max_decoded_bytes: int = 4 * 2**30
    max_frames_per_byte: float = 100.0
    bomb_floor_bytes: int = 32 * 2**20
    window_s: float = 120.0
    window_samples: int = 12_000_000
    min_duration_s: float = 0.020
    max_amplitude: float = 8.0
    silence_dbfs: float = -80.0
    dc_offset: float = 0.05
    child_memory_bytes: int = 2 * 2**30
    child_cpu_s: int = 60
    child_wall_s: float = 60.0

    def window_frames(self, sample_rate_hz: int, channels: int) -> int:
        """Return how many frames one window holds at the rate held and width, at least one."""
        by_time = int(self.window_s * sample_rate_hz)
        return max(1, min(by_time, self.window_samples // channels))


DEFAULT_LIMITS = AudioLimits()
