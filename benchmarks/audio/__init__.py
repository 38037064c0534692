"""How fast and how right the audio analysis is, on sounds made here or installed by Debian."""

from benchmarks.row import Row
from samplemind.audio.threads import limit_threads


def rows(*, quick: bool = False) -> list[Row]:
    """Every figure of the audio analysis; under four minutes on two cores, `quick` under one."""
    limit_threads()
    from benchmarks.audio import accuracy, memory, throughput

    return [*throughput.rows(quick=quick), *memory.rows(), *accuracy.rows(quick=quick)]
