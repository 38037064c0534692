"""From timings to rows: every query class has its percentiles, its throughput and its peer."""

from dataclasses import dataclass

from benchmarks.row import Row, row
from benchmarks.search.measure import CLIENTS, Timings


@dataclass(frozen=True, slots=True)
class Peer:
    """Who did the same in the same run, in ms at the 95th percentile, and how near is near enough.

    `within` is how many times as long the platform may take.
    """

    name: str
    p95: float
    within: float | None


def latency_rows(
    name: str,
    timings: Timings,
    answered: float | None,
    *,
    goal_ms: float | None = None,
    peer: Peer | None = None,
) -> list[Row]:
    """Return the rows of one query class; a ratio below one means slower than the peer."""
    rows = [
        row(
            f"{name}, p95",
            timings.p95,
            "ms",
            peer=(peer.name, peer.p95) if peer else None,
            ratio=peer.p95 / timings.p95 if peer else None,
            goal=f"≤ {goal_ms:g}" if goal_ms else None,
            met=timings.p95 <= goal_ms if goal_ms else None,
        ),
        row(f"{name}, p50", timings.p50, "ms"),
        row(f"{name}, p99", timings.p99, "ms"),
    ]
    if answered is not None:
        rows.append(row(f"{name}, {CLIENTS} clients", answered, "queries/s"))
    if peer and peer.within:
        times = timings.p95 / peer.p95
        rows.append(
            row(
                f"{name}, times as long as {peer.name}",
                times,
                "×",
                goal=f"≤ {peer.within:g}",
                met=times <= peer.within,
            )
        )
    return rows


def share_row(name: str, share: float, goal: float) -> Row:
    """Return the row of a share that must not be below its goal."""
    return row(name, share, "of 1", goal=f"≥ {goal:g}", met=share >= goal)
