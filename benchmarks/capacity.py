"""How many files an hour some machines analyse: a model, and the model against a measurement.

A file keeps one process of worker-audio busy for `process_s` seconds and all processors of the
platform for `processor_s` seconds, `index_s` of them in the one drain of the index that runs at a
time. So what the platform does in a second is bounded by its processes, by the processors that its
periodic jobs leave, and by that drain; the least of the three is its throughput.

The costs are measured on one set of short files with one process, and what the model says of other
files, with one process and with two, is compared with what happened. Other files have other costs:
`analyze` takes longer for a song than for a hit, and whoever plans for a library measures on some
of it.
"""

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.pipeline import write_one_shots
from benchmarks.platform import ask, samplemind, temporary_home
from benchmarks.row import Row, row

FILES = 2000
_CALIBRATION = 1000
_WARM = 64
_IDLE_S = 15
_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Costs:
    """What one file costs, in seconds.

    Attributes:
        process_s: of one process of worker-audio, waiting included.
        processor_s: of processors, of all processes and stores together.
        index_s: of the index worker and of PostgreSQL, which one drain at a time uses.
        idle: processors that the platform keeps busy when no file waits.
    """

    process_s: float
    processor_s: float
    index_s: float
    idle: float = 0.0


@dataclass(frozen=True, slots=True)
class Site:
    """What there is to work with.

    Attributes:
        processes: of worker-audio, on all machines.
        processors: of all machines together, those of the stores included.
    """

    processes: int
    processors: int


def throughput(costs: Costs, site: Site) -> float:
    """Return the files a second that a site analyses while there are enough to do."""
    return min(
        site.processes / costs.process_s,
        _processors(costs, site) / costs.processor_s,
        1 / costs.index_s,
    )


def bound_by(costs: Costs, site: Site) -> str:
    """Return what a site would need more of to be faster."""
    bounds = {
        "processes": site.processes / costs.process_s,
        "processors": _processors(costs, site) / costs.processor_s,
        "index": 1 / costs.index_s,
    }
    return min(bounds, key=lambda name: bounds[name])


def _processors(costs: Costs, site: Site) -> float:
    return max(0.0, site.processors - costs.idle)


def files_an_hour(costs: Costs, site: Site) -> float:
    """Return the same for an hour."""
    return throughput(costs, site) * _HOUR_S


def processes_for(costs: Costs, files_an_hour: float, *, busy: float = 0.7) -> int:
    """Return the processes that analyse so many files while each is busy that share of its time.

    Raises:
        ValueError: the one drain of the index does not keep up with so many.
    """
    files_a_second = files_an_hour / _HOUR_S
    if files_a_second * costs.index_s >= 1:
        message = f"the index takes {_HOUR_S / costs.index_s:,.0f} files an hour at most"
        raise ValueError(message)
    return max(1, math.ceil(files_a_second * costs.process_s / busy))


def seconds_to_clear(costs: Costs, site: Site, waiting: int, arriving: float = 0.0) -> float:
    """Return after how many seconds a queue of files is empty while others arrive each second."""
    spare = throughput(costs, site) - arriving
    return waiting / spare if spare > 0 else math.inf


def mean_wait_s(costs: Costs, site: Site, arriving: float) -> float:
    """Return how long a file that arrives at random waits for a process, on average.

    Erlang's formula for a queue with several servers (A. K. Erlang, 1917).

    Args:
        costs: of a file.
        site: what there is.
        arriving: files a second.
    """
    servers = site.processes
    served = throughput(costs, site) / servers
    load = arriving / served
    if load >= servers:
        return math.inf
    # From the probability that all of n servers are busy to that of n + 1.
    blocking = 1.0
    for number in range(1, servers + 1):
        blocking = load * blocking / (number + load * blocking)
    waits = blocking / (1 - (load / servers) * (1 - blocking))
    return waits / (servers * served - arriving)


def rows(*, quick: bool) -> list[Row]:
    """Return the costs of a file, and predicted beside measured throughput."""
    count, calibration = (900, 600) if quick else (FILES, _CALIBRATION)
    with temporary_home() as home:
        samples = home / "samples"
        samples.mkdir()
        write_one_shots(samples / "calibration", calibration)
        costs = _costs(home, samples / "calibration", calibration)
        found = [
            row("a short file: a process of worker-audio", costs.process_s * 1000, "ms"),
            row("a short file: processors of everything", costs.processor_s * 1000, "ms"),
            row("a short file: of it, writing the index", costs.index_s * 1000, "ms"),
            row("processors busy while no file waits", costs.idle, ""),
        ]
        for processes in (1, 2):
            folder = samples / f"with_{processes}"
            write_one_shots(folder, count, first=10_000 * processes)
            found.append(_compared(home, folder, costs, processes))
    return found


def _compared(home: Path, folder: Path, costs: Costs, processes: int) -> Row:
    predicted = throughput(costs, Site(processes, len(os.sched_getaffinity(0))))
    with _started(home, processes):
        measured = _ingest(home, folder)
    off = abs(predicted / measured - 1)
    return row(
        f"files analysed a second, {processes} process{'es' if processes > 1 else ''}",
        measured,
        "1/s",
        peer=("the model", predicted),
        ratio=measured / predicted,
        goal="within 20 %",
        met=off <= 0.2,
    )


class _started:  # noqa: N801 - reads as the context that it is
    """The platform with so many processes of worker-audio, for the block."""

    def __init__(self, home: Path, processes: int) -> None:
        self._home = home
        self._settings = {"SAMPLEMIND_WORKER_AUDIO_CONCURRENCY": str(processes)}

    def __enter__(self) -> None:
        samplemind("up", "--detach", home=self._home, settings=self._settings)

    def __exit__(self, *_: object) -> None:
        samplemind("down", home=self._home)


def _ingest(home: Path, folder: Path) -> float:
    """Analyse a folder; return files a second, from the first claim to the last result."""
    found = ask("ingest", str(folder), "--wait", home=home)
    assert found["done"] == found["files"]
    return float(found["files"] / found["seconds"])


def _costs(home: Path, folder: Path, files: int) -> Costs:
    with _started(home, 1):
        write_one_shots(folder.with_name("warm"), _WARM, first=90_000)
        _ingest(home, folder.with_name("warm"))  # so that what is loaded once is no file's cost
        _await_indexed(home)
        idle = _used_in(home, lambda: time.sleep(_IDLE_S))
        rates: list[float] = []
        began = time.monotonic()
        used = _used_in(home, lambda: rates.append(_ingest(home, folder)) or _await_indexed(home))
        elapsed_s = time.monotonic() - began
    idle_share = {name: seconds / _IDLE_S for name, seconds in idle.items()}
    a_file = {
        name: max(0.0, seconds - idle_share[name] * elapsed_s) / files
        for name, seconds in used.items()
    }
    # Of what PostgreSQL did nearly all were the drain's statements, for which it waits.
    index_s = a_file["index"] + a_file["postgres"]
    return Costs(1 / rates[0], sum(a_file.values()), index_s, sum(idle_share.values()))


def _used_in(home: Path, work: Callable[[], object]) -> Mapping[str, float]:
    before = _processor_seconds(home)
    work()
    return {name: seconds - before[name] for name, seconds in _processor_seconds(home).items()}


def _processor_seconds(home: Path) -> Mapping[str, float]:
    """Return the processor time of each service and its children since it started."""
    services: list[dict[str, Any]] = ask("status", home=home, code=None)["services"]
    found = {}
    for service in services:
        # All others are children of the supervisor's: with it they would count twice.
        if service["pid"] and service["kind"] != "supervisor":
            process = psutil.Process(service["pid"])
            family = [process, *process.children(recursive=True)]
            found[service["name"]] = sum(map(_seconds, family))
    return found


def _seconds(process: psutil.Process) -> float:
    # What children did that have ended is counted with their parent.
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def _await_indexed(home: Path) -> None:
    deadline = time.monotonic() + 120
    while ask("index", "status", home=home)["waiting"]:
        if time.monotonic() > deadline:
            message = "the index was not caught up within 120 s"
            raise TimeoutError(message)
        time.sleep(0.5)
