"""What became of one file: a closed set of outcomes, each with a sentence that names the mend.

Invariant: an outcome is a result, recorded once and never retried; what may pass by itself is a
`TransientError` instead. Nothing here opens a file.
"""

from enum import StrEnum

from samplemind.errors import PermanentError


class Outcome(StrEnum):
    """The end of one file's analysis; `rejected:<reason>` means that it was not analysed."""

    ANALYZED = "analyzed"
    TRUNCATED = "truncated"
    SILENT = "silent"
    SHORT = "short"
    NOT_FOUND = "rejected:not_found"
    PERMISSION = "rejected:permission"
    SYMLINK = "rejected:symlink"
    NOT_REGULAR_FILE = "rejected:not_regular_file"
    OUTSIDE_ROOT = "rejected:outside_root"
    EMPTY = "rejected:empty"
    TOO_SMALL = "rejected:too_small"
    TOO_LARGE = "rejected:too_large"
    UNKNOWN_FORMAT = "rejected:unknown_format"
    UNREADABLE = "rejected:unreadable"
    NO_AUDIO_STREAM = "rejected:no_audio_stream"
    NO_FRAMES = "rejected:no_frames"
    CHANNELS = "rejected:channels"
    SAMPLE_RATE = "rejected:sample_rate"
    TOO_LONG = "rejected:too_long"
    DECOMPRESSION_BOMB = "rejected:decompression_bomb"
    RANGE = "rejected:range"
    DECODER_CRASHED = "rejected:decoder_crashed"
    DECODER_TIMEOUT = "rejected:decoder_timeout"

    @property
    def rejected(self) -> bool:
        """Whether the file was refused, so that nothing is known about its sound."""
        return self.value.startswith("rejected:")

    @property
    def measured(self) -> bool:
        """Whether the sound was measured, in whole or in part."""
        return self in (Outcome.ANALYZED, Outcome.TRUNCATED)

    @property
    def message(self) -> str:
        """One sentence for the person whose file this is."""
        return _MESSAGES[self]


_MESSAGES: dict[Outcome, str] = {
    Outcome.ANALYZED: "The file was analysed.",
    Outcome.TRUNCATED: (
        "The file ends or breaks before its header says it does; the part that could be read was "
        "analysed. Export it again for the rest."
    ),
    Outcome.SILENT: (
        "The file holds silence, so it has no tempo, key or likeness; delete it or export it again."
    ),
    Outcome.SHORT: "The sound is too short to be measured; only its length and peak are known.",
    Outcome.NOT_FOUND: "There is no file of this name; check the path.",
    Outcome.PERMISSION: "The file may not be read; give the worker's user read permission.",
    Outcome.SYMLINK: "The path is a symbolic link, which is never followed; name the file itself.",
    Outcome.NOT_REGULAR_FILE: "This is a folder, pipe or device; name an audio file.",
    Outcome.OUTSIDE_ROOT: "The file lies outside the folder that may be read; move it inside.",
    Outcome.EMPTY: "The file has 0 bytes; copy or download it again.",
    Outcome.TOO_SMALL: "The file is too small to hold audio; copy or download it again.",
    Outcome.TOO_LARGE: "The file is larger than the limit; split it or raise the limit.",
    Outcome.UNKNOWN_FORMAT: (
        "The content is no audio format that is read here, whatever its name says; convert it to "
        "WAV or FLAC."
    ),
    Outcome.UNREADABLE: "The audio data is damaged beyond reading; export or download it again.",
    Outcome.NO_AUDIO_STREAM: "The container holds no audio; export the sound as WAV or FLAC.",
    Outcome.NO_FRAMES: (
        "The header is valid but no sound follows, as after a recording that was never finished; "
        "export it again."
    ),
    Outcome.CHANNELS: "The number of channels is outside the limits; export it as mono or stereo.",
    Outcome.SAMPLE_RATE: "The sample rate is outside the limits; export it at 44.1 or 48 kHz.",
    Outcome.TOO_LONG: "The sound is longer than the limit; split it or raise the limit.",
    Outcome.DECOMPRESSION_BOMB: (
        "The file would expand far beyond its size on disk; if it is genuine, convert it to WAV."
    ),
    Outcome.RANGE: "The samples are far beyond full scale; export them on a scale of -1 to 1.",
    Outcome.DECODER_CRASHED: "The decoder crashed twice on this file; convert it to WAV or FLAC.",
    Outcome.DECODER_TIMEOUT: "Decoding took too much processor time; convert it to WAV or FLAC.",
}


class AudioRejectedError(PermanentError):
    """One file is refused for good; `outcome` says why, and its message how to mend it."""

    def __init__(self, outcome: Outcome, detail: str = "") -> None:
        """Keep the outcome; `detail` adds figures, and is free of anything the file wrote."""
        super().__init__(f"{outcome.message} ({detail})" if detail else outcome.message)
        self.outcome = outcome
        self.detail = detail
