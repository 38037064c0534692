"""`make bench`: run every benchmark, print a table, write `benchmarks/results/latest.json`.

Figures of different machines do not compare, so each row stands beside a peer that was measured in
the same run wherever there is one, and the ratio is what counts.
"""

import argparse
import importlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

from rich.console import Console  # noqa: E402  # the variables must be set before numpy loads
from rich.table import Table  # noqa: E402

from benchmarks.row import Row  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "latest.json"
AREAS = (
    "audio",
    "stack",
    "pipeline",
    "capacity",
    "jobs",
    "streams",
    "batches",
    "search",
    "cache",
    "maintenance",
    "backup",
    "observing",
    "console",
)

_OWN_OPTIONS = {"search": ("files", "home"), "console": ("soak",)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer files, for a first look")
    parser.add_argument(
        "--files", type=int, default=100_000, help="in the library that search is measured on"
    )
    parser.add_argument(
        "--home", type=Path, help="keep the searched library here, and use it again"
    )
    parser.add_argument(
        "--soak", action="store_true", help="tell the console of events for ten minutes"
    )
    parser.add_argument("areas", nargs="*", default=list(AREAS), help=f"of {', '.join(AREAS)}")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    for area in options.areas:
        own = _OWN_OPTIONS.get(area, ())
        chosen = {name: getattr(options, name) for name in own}
        rows += importlib.import_module(f"benchmarks.{area}").rows(quick=options.quick, **chosen)
    _print(rows)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"Written to {RESULTS.relative_to(Path.cwd())}")


def _print(rows: Sequence[Row]) -> None:
    table = Table(box=None)
    for column in ("measured", "value", "unit", "peer", "its value", "ratio", "goal", "met"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            row["name"],
            _number(row["value"]),
            row["unit"],
            row["peer"],
            _number(row["peer_value"]),
            _number(row["ratio"]),
            row["goal"],
            {True: "yes", False: "no", None: ""}[row["met"]],
        )
    Console(width=160).print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
