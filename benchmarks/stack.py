"""How long the platform takes to start, from nothing and with data present."""

from benchmarks.platform import samplemind, temporary_home
from benchmarks.row import Row, row

WARM_GOAL_S = 10.0


def rows(*, quick: bool) -> list[Row]:
    """Return the seconds until everything is healthy; the median of the warm starts."""
    with temporary_home() as home:
        cold = samplemind("up", "--detach", home=home)
        warm = []
        for _ in range(1 if quick else 3):
            samplemind("down", home=home)
            warm.append(samplemind("up", "--detach", home=home))
    median = sorted(warm)[len(warm) // 2]
    return [
        row("samplemind up, first time", cold, "s"),
        row(
            "samplemind up, data present",
            median,
            "s",
            goal=f"< {WARM_GOAL_S:.0f}",
            met=median < WARM_GOAL_S,
        ),
    ]
