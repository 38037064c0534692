"""Peak memory of a fresh process that analyses one file, from its first byte to its measures."""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.audio import drums
from benchmarks.row import Row, row

GOAL_MIB = 200.0
BEAT_S = 0.5


@dataclass(frozen=True, slots=True)
class Case:
    """One file to analyse; the goal is for what is shorter than a minute."""

    name: str
    length_s: float
    rate_hz: int = 44_100
    channels: int = 2
    container: str = "WAV"

    @property
    def bounded(self) -> bool:
        """Whether the goal holds for it."""
        return self.length_s < 60


CASES = (
    Case("one-shot of 1.2 s", 1.2),
    Case("loop of 8 s", 8.0),
    Case("sound of 59 s", 59.0),
    Case("sound of 59 s at 192 kHz", 59.0, rate_hz=192_000),
    Case("sound of 59 s at 48 kHz, 8 channels", 59.0, rate_hz=48_000, channels=8),
    Case("window of 120 s", 120.0),
    Case("recording of two hours", 7200.0, container="FLAC"),
)
CHILD = """
import sys
from pathlib import Path
from samplemind.audio.threads import limit_threads
limit_threads()
from samplemind.audio.analysis import analyze_file
analysis = analyze_file(Path(sys.argv[1]))
assert analysis.outcome == "analyzed", analysis.outcome
# Not getrusage: its figure begins with the parent's, from before exec.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) / 1024)
"""


def _write(path: Path, case: Case) -> None:
    """Write snare hits, one each half second."""
    beat = round(BEAT_S * case.rate_hz)
    hit = drums.hit("snare", np.random.default_rng(0))[:beat]
    once = np.zeros((beat, case.channels), dtype=np.float32)
    once[: len(hit)] = hit[:, None]
    left = round(case.length_s * case.rate_hz)
    with soundfile.SoundFile(
        path, "w", case.rate_hz, case.channels, "PCM_16", format=case.container
    ) as sound:
        while left > 0:
            sound.write(once[:left])
            left -= beat


def peak_mib(path: Path) -> float:
    command = [sys.executable, "-c", CHILD, str(path)]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(finished.stdout)


def rows() -> list[Row]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            path = Path(folder) / "sound"
            _write(path, case)
            peak = peak_mib(path)
            width = "stereo " if case.channels == 2 else ""
            found.append(
                row(
                    f"peak memory, one {width}{case.name}",
                    peak,
                    "MiB",
                    goal=f"≤ {GOAL_MIB:g}" if case.bounded else None,
                    met=peak <= GOAL_MIB if case.bounded else None,
                )
            )
    return found
