"""Grooves that Debian's `mma` writes and `fluidsynth` renders: tempo and key are exact.

No profile or projection was fitted on them. Compound and triple metres are left out: which of their
pulses is the beat is a matter of taste.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.audio.drums import Random
from benchmarks.audio.phrases import PITCHES

LIBRARY = Path("/usr/share/mma/lib/stdlib")
SOUNDFONTS = tuple(
    Path("/usr/share/sounds/sf2") / name for name in ("FluidR3_GM.sf2", "TimGM6mb.sf2")
)
CHORDS = {
    "major": (((0, ""), (7, ""), (9, "m"), (5, "")), ((0, "M7"), (9, "m7"), (2, "m7"), (7, "7"))),
    "minor": (((0, "m"), (8, ""), (3, ""), (10, "")), ((0, "m"), (5, "m"), (7, "7"), (0, "m"))),
}
BARS, BEATS_PER_BAR = 4, 4


@dataclass(frozen=True, slots=True)
class Groove:
    """A rendered file of whole bars and what is true of it."""

    path: Path
    tempo_bpm: float
    key: str
    length_s: float


def can_render() -> bool:
    fonts = [font for font in SOUNDFONTS if font.is_file()]
    return bool(shutil.which("mma") and shutil.which("fluidsynth") and fonts)


def _in_common_time(library_file: Path) -> bool:
    text = library_file.read_text(encoding="utf-8", errors="replace")
    time = re.search(r"^\s*Time\s+(\S+)", text, re.MULTILINE | re.IGNORECASE)
    signature = re.search(r"^\s*TimeSig\s+(\S+)\s+(\S+)", text, re.MULTILINE | re.IGNORECASE)
    return (time is None or time[1] == "4") and (signature is None or signature[2] == "4")


def _write_chart(random: Random, chart: Path, groove: str) -> tuple[float, str]:
    bpm, pitch = float(random.integers(80, 161)), int(random.integers(12))
    mode = str(random.choice(["major", "minor"]))
    chords = CHORDS[mode][int(random.integers(2))]
    flats = {"D#": "Eb", "G#": "Ab", "A#": "Bb"}
    lines = [f"Tempo {bpm:.0f}", f"Groove {groove}"]
    for bar in range(BARS):
        step, quality = chords[bar % len(chords)]
        name = PITCHES[(pitch + step) % 12]
        lines.append(f"{bar + 1} {flats.get(name, name)}{quality}")
    chart.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return bpm, f"{PITCHES[pitch]} {mode}"


def _run(*command: str) -> bool:
    finished = subprocess.run(command, capture_output=True, timeout=60, check=False)
    return finished.returncode == 0


def render_grooves(folder: Path, count: int, seed: int = 11) -> Iterator[Groove]:
    """Render up to `count` grooves of the standard library into `folder`."""
    random = np.random.default_rng(seed)
    fonts = [font for font in SOUNDFONTS if font.is_file()]
    library = [path for path in sorted(LIBRARY.glob("*.mma")) if _in_common_time(path)]
    for index in random.permutation(len(library))[:count]:
        name = library[index].stem
        chart, midi, wave = (folder / f"{name}{end}" for end in (".mma", ".mid", ".wav"))
        bpm, key = _write_chart(random, chart, name)
        font = fonts[index % len(fonts)]
        render = ("fluidsynth", "-ni", "-q", "-r", "44100", "-g", "0.6", "-F", str(wave))
        if _run("mma", "-f", str(midi), str(chart)) and _run(*render, str(font), str(midi)):
            yield Groove(wave, bpm, key, BARS * BEATS_PER_BAR * 60 / bpm)
