"""One-shot or loop: a rule over length, onsets and how the sound ends."""

import math
from dataclasses import dataclass

import numpy as np

from samplemind.audio.hints import Kind
from samplemind.audio.spectrum import Floats

SHORTEST_LOOP_S = 1.2
FEWEST_LOOP_ONSETS = 4
TAIL_PART = 5  # the last fifth
TAIL_FLOOR_DB = -22.0  # what rings out has fallen further, what repeats has not


@dataclass(frozen=True, slots=True)
class KindGuess:
    """A kind and how clearly the rule decided for it, 0 (on the edge) to 1."""

    kind: Kind
    confidence: float


def tail_level_db(energy: Floats) -> float:
    """Level of a sound's last fifth against its loudest fifth, in dB, at most 0.

    Args:
        energy: of each frame, shape (n,).
    """
    if len(energy) < TAIL_PART:
        return 0.0
    parts = [part.mean(dtype=np.float64) for part in np.array_split(energy, TAIL_PART)]
    loudest = max(parts)
    return 10 * math.log10(max(parts[-1] / max(loudest, 1e-12), 1e-12))


def guess_kind(duration_s: float, onset_count: int, tail_db: float) -> KindGuess:
    """Call a sound a loop when it is long enough, begins anew often enough and does not fade.

    Each condition gives a margin in about -1..1; the weakest one decides, because a loop needs
    all three.
    """
    margins = (
        math.log2(max(duration_s, 1e-3) / SHORTEST_LOOP_S),
        math.log2((onset_count + 0.5) / (FEWEST_LOOP_ONSETS - 0.5)),
        (tail_db - TAIL_FLOOR_DB) / 20.0,
    )
    margin = min(margins)
    kind = Kind.LOOP if margin > 0 else Kind.ONE_SHOT
    return KindGuess(kind, min(1.0, abs(margin)))
