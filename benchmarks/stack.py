"""How long a newcomer waits: the demo from a fresh clone, and starts with and without data."""

import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.platform import samplemind, temporary_home
from benchmarks.row import Row, row

WARM_GOAL_S = 10.0
DEMO_GOAL_S = 180.0

_REPOSITORY = Path(__file__).parents[1]


def rows(*, quick: bool) -> list[Row]:
    """Return the seconds until everything is healthy, and those of a first demo."""
    return [*_starts(quick=quick), *([] if quick else [_first_demo()])]


def _first_demo() -> Row:
    with tempfile.TemporaryDirectory(prefix="samplemind-bench-") as name:
        clone = Path(name) / "clone"
        subprocess.run(["git", "clone", "--quiet", _REPOSITORY, clone], check=True)
        started = time.perf_counter()
        subprocess.run(
            ["make", "demo", "ARGS=--once"],
            cwd=clone,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        seconds = time.perf_counter() - started
    return row(
        "make demo from a fresh clone, packages cached",
        seconds,
        "s",
        goal=f"< {DEMO_GOAL_S:.0f}",
        met=seconds < DEMO_GOAL_S,
    )


def _starts(*, quick: bool) -> list[Row]:
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
