"""Putting two rankings together: one by words, one by sound. Pure functions.

Invariant: a file that one ranking lacks gets nothing from it, which is less than its last file
gets. Ties go to the newer id, so an order is always the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

# The constant of Cormack, Clarke and Büttcher (SIGIR 2009), who found ranks fused by it robust.
RANK_CONSTANT = 60
# What the last file of a ranking gets, where the first gets 1: being found at all counts.
LEAST = 0.1


class Fusion(StrEnum):
    """How two rankings become one."""

    RECIPROCAL_RANK = "rrf"  # by places alone, whatever the scores
    WEIGHTED = "weighted"  # by scores, each ranking's brought to 0..1


@dataclass(frozen=True, slots=True)
class Ranked:
    """A file's place among a ranking's, by its score there; higher is better."""

    file_id: UUID
    score: float


@dataclass(frozen=True, slots=True)
class Fused:
    """A file's score over all rankings, and what each gave to it."""

    file_id: UUID
    score: float
    parts: Mapping[str, float]


def fuse(
    rankings: Mapping[str, Sequence[Ranked]],
    *,
    fusion: Fusion,
    weights: Mapping[str, float],
) -> list[Fused]:
    """Return every ranked file, best first.

    Args:
        rankings: name → files, best first.
        fusion: how they become one.
        weights: name → share of the score, which `WEIGHTED` heeds; they sum to 1.

    Returns:
        files whose parts are, by the ranking's name: `…_rank` from 1, `…_score` as the ranking
        has it, and `…_part`, which are summed.
    """
    parts: dict[UUID, dict[str, float]] = {}
    for name, ranked in rankings.items():
        if fusion is Fusion.RECIPROCAL_RANK:
            shares = [1 / (RANK_CONSTANT + rank) for rank in range(1, len(ranked) + 1)]
        else:
            shares = [weights[name] * share for share in normalised([one.score for one in ranked])]
        for rank, (one, share) in enumerate(zip(ranked, shares, strict=True), start=1):
            parts.setdefault(one.file_id, {}).update(
                {f"{name}_rank": rank, f"{name}_score": one.score, f"{name}_part": share}
            )
    names = [f"{name}_part" for name in rankings]
    fused = [
        Fused(file_id, sum(part.get(name, 0.0) for name in names), part)
        for file_id, part in parts.items()
    ]
    return sorted(fused, key=lambda one: (one.score, one.file_id), reverse=True)


def normalised(scores: Sequence[float]) -> list[float]:
    """Return the scores of one query scaled to 0.1..1; 1 for each where all are the same."""
    if not scores:
        return []
    low, high = min(scores), max(scores)
    if high == low:
        return [1.0] * len(scores)
    return [LEAST + (1 - LEAST) * (score - low) / (high - low) for score in scores]
