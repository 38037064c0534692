"""The demo's pack: one-shots in variations, and loops of known tempo and key.

Invariant: the same files with the same samples each time, in a folder that is replaced whole, so
ingesting it twice analyses nothing again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import soundfile

from samplemind.demo import instruments as play
from samplemind.demo.instruments import RATE_HZ, Samples

PACK_NAME = "First Light"

_BEATS = 16  # four bars
_PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_MINOR_TRIAD, _MAJOR_TRIAD = (0, 3, 7), (0, 4, 7)

# Roots above the tonic, one for each bar, with the triad that the key builds on it.
_MINOR_BARS = ((0, _MINOR_TRIAD), (8, _MAJOR_TRIAD), (3, _MAJOR_TRIAD), (10, _MAJOR_TRIAD))
_MAJOR_BARS = ((0, _MAJOR_TRIAD), (7, _MAJOR_TRIAD), (9, _MINOR_TRIAD), (5, _MAJOR_TRIAD))

# Pitch in Hz, how far it sweeps, decay in s.
_KICKS = (
    (46.0, 4.0, 0.4),
    (52.0, 5.0, 0.3),
    (41.0, 3.0, 0.7),
    (60.0, 7.0, 0.2),
    (49.0, 4.5, 0.35),
    (55.0, 3.5, 0.5),
)
_DRUM_LOOPS = (("Dusty", 92), ("House", 124), ("Broken", 132), ("Fast", 172))
_TONAL_LOOPS = ((9, "minor", 100), (5, "minor", 124), (0, "major", 118), (6, "minor", 140))


@dataclass(frozen=True, slots=True)
class PackFile:
    """One file of the pack, made when it is asked for; the truth it was made from stands by."""

    name: str
    make: Callable[[], Samples]
    tempo_bpm: int | None = None
    key: str | None = None


def pack_files() -> Iterator[PackFile]:
    """Yield every file of the pack, in name order within its kind."""
    yield from _one_shots()
    for style, (name, tempo) in enumerate(_DRUM_LOOPS):
        yield PackFile(
            f"Loops/Drums/{name}_Drum_Loop_{tempo}bpm.wav",
            partial(_drum_loop, tempo, style),
            tempo_bpm=tempo,
        )
    for tonic, mode, tempo in _TONAL_LOOPS:
        label = f"{_PITCH_CLASSES[tonic]}{'min' if mode == 'minor' else 'maj'}"
        for instrument, make in (("Bass", _bass_loop), ("Chord", _chord_loop)):
            yield PackFile(
                f"Loops/{instrument}/{instrument}_Loop_{tempo}bpm_{label}.flac",
                partial(make, tonic, mode, tempo),
                tempo_bpm=tempo,
                key=f"{_PITCH_CLASSES[tonic]} {mode}",
            )


def write_pack(folder: Path) -> list[Path]:
    """Write the pack under `folder`; files that stand there already are left as they are."""
    paths = []
    for file in pack_files():
        path = folder / PACK_NAME / file.name
        paths.append(path)
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}")
        soundfile.write(
            draft, file.make(), RATE_HZ, subtype="PCM_16", format=path.suffix[1:].upper()
        )
        draft.replace(path)
    return paths


def _one_shots() -> Iterator[PackFile]:
    for number, (pitch_hz, sweep, decay_s) in enumerate(_KICKS, 1):
        weight = "Deep" if pitch_hz < 50 else "Punchy"
        yield PackFile(
            f"One Shots/Kicks/{weight}_Kick_{number:02}.wav",
            partial(play.kick, pitch_hz=pitch_hz, sweep=sweep, decay_s=decay_s),
        )
    for number in range(1, 7):
        tone_hz, snap, decay_s = 160 + 20 * number, 0.5 + 0.07 * number, 0.12 + 0.03 * number
        yield PackFile(
            f"One Shots/Snares/Snare_{number:02}.wav",
            partial(play.snare, seed=number, tone_hz=tone_hz, snap=snap, decay_s=decay_s),
        )
        closed = number <= 3
        yield PackFile(
            f"One Shots/Hats/{'Closed' if closed else 'Open'}_Hat_{number:02}.wav",
            partial(play.hat, seed=10 + number, decay_s=(0.015 if closed else 0.08) * number),
        )
    for number in range(1, 4):
        yield PackFile(
            f"One Shots/Claps/Clap_{number:02}.wav",
            partial(play.clap, seed=20 + number, decay_s=0.08 + 0.04 * number),
        )
    for note in (33, 36, 41):
        yield PackFile(
            f"One Shots/Bass/Bass_Hit_{_PITCH_CLASSES[note % 12]}{note // 12 - 1}.wav",
            partial(play.bass, note, 0.9),
        )


def _drum_loop(tempo: int, style: int) -> Samples:
    beat_s = 60 / tempo
    kick, snare = play.kick(decay_s=0.25), play.snare(seed=style)
    hat, open_hat = play.hat(seed=5), play.hat(seed=6, decay_s=0.2)
    kicks = ((0, 2.5), (0, 1, 2, 3), (0, 1.75, 2.5), (0, 2.5))[style]
    events = []
    for bar in range(0, _BEATS, 4):
        events += [((bar + beat) * beat_s, kick, 1.0) for beat in kicks]
        events += [((bar + beat) * beat_s, snare, 0.8) for beat in (1, 3)]
        events += [((bar + step / 2) * beat_s, hat, 0.35 + 0.1 * (step % 2)) for step in range(8)]
        events.append(((bar + 3.5) * beat_s, open_hat, 0.3))
    return play.mix_at(_BEATS * beat_s, events)


def _bass_loop(tonic: int, mode: str, tempo: int) -> Samples:
    beat_s = 60 / tempo
    events = []
    for bar, (root, triad) in enumerate(_MINOR_BARS if mode == "minor" else _MAJOR_BARS):
        for step, interval in enumerate((0, 0, triad[2], 0, 0, triad[1], triad[2], 0)):
            note = 36 + (tonic + root) % 12 + interval
            events.append(((bar * 4 + step / 2) * beat_s, play.bass(note, beat_s * 0.45), 0.9))
    return play.mix_at(_BEATS * beat_s, events)


def _chord_loop(tonic: int, mode: str, tempo: int) -> Samples:
    beat_s = 60 / tempo
    events = []
    for bar, (root, triad) in enumerate(_MINOR_BARS if mode == "minor" else _MAJOR_BARS):
        notes = tuple(48 + (tonic + root) % 12 + interval for interval in triad)
        for beat, length in ((0, 1.5), (1.5, 1.0), (2.5, 1.5)):
            events.append(((bar * 4 + beat) * beat_s, play.chord(notes, length * beat_s), 0.7))
    return play.mix_at(_BEATS * beat_s, events)
