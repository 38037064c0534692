"""What a file's name says about its sound: evidence of its own, kept beside the measurement.

A hint never replaces a measurement; `samplemind.audio.measure` says which ties it may break.
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Whether a sound is one event or a phrase that repeats."""

    ONE_SHOT = "one_shot"
    LOOP = "loop"


@dataclass(frozen=True, slots=True)
class Hints:
    """Evidence from a file name; None where the name says nothing.

    Attributes:
        tempo_bpm: beats a minute.
        key: as this package writes keys, "F# minor".
        kind: one-shot or loop.
    """

    tempo_bpm: float | None = None
    key: str | None = None
    kind: Kind | None = None
