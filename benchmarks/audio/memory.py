"""Peak memory of a fresh process that measures one sound, reading included."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.audio import drums
from benchmarks.row import Row, row

GOAL_MIB = 200.0
LENGTHS_S = {"one-shot": 1.2, "loop": 8.0, "sound": 59.0, "window": 120.0}
RATE = drums.RATE
CHILD = """
import sys
from pathlib import Path
from samplemind.audio.threads import limit_threads
limit_threads()
import soundfile
from samplemind.audio.measure import Sound, measure
samples, rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
measure(Sound(samples, rate, len(samples) / rate, True))
# Not getrusage: its figure begins with the parent's, from before exec.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) / 1024)
"""


def _write(path: Path, length_s: float) -> None:
    random = np.random.default_rng(0)
    hit = drums.hit("snare", random)[:, None]
    beats = np.tile(np.pad(hit, ((0, RATE // 2), (0, 0))), (int(length_s * 2) + 1, 2))
    soundfile.write(path, beats[: round(length_s * RATE)], RATE)


def peak_mib(path: Path) -> float:
    command = [sys.executable, "-c", CHILD, str(path)]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(finished.stdout)


def rows() -> list[Row]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, length_s in LENGTHS_S.items():
            path = Path(folder) / f"{name}.wav"
            _write(path, length_s)
            peak = peak_mib(path)
            bounded = length_s < 60
            found.append(
                row(
                    f"peak memory, one stereo {name} of {length_s:g} s",
                    peak,
                    "MiB",
                    goal=f"≤ {GOAL_MIB:g}" if bounded else None,
                    met=peak <= GOAL_MIB if bounded else None,
                )
            )
    return found
