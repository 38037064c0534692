"""Musical keys: how they are written, and which of them sound well together.

Invariant: a key is always written as `F# minor`: sharps only, the mode in full.
"""

import re

from samplemind.errors import InvalidInputError

_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_NATURAL = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SHIFTS = {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1}
# A lone small m is minor and a lone large one major, as musicians write them.
_KEY = re.compile(r"\s*([A-Ga-g])([#♯b♭]?)\s*(m|M|(?i:min|minor|maj|major))?\s*")
_CAMELOT = re.compile(r"\s*(1[0-2]|[1-9])([ABab])\s*")
_FIFTH = 7  # semitones; a step on the wheel


def parse_key(text: str) -> str:
    """Read a key however it is written (`F#m`, `Gb minor`, `Dmaj`, Camelot's `11A`).

    Returns:
        The key as the index writes it, such as `F# minor`.

    Raises:
        InvalidInputError: it is no key.
    """
    camelot = _CAMELOT.fullmatch(text)
    if camelot is not None:
        return _at_camelot(int(camelot[1]), minor=camelot[2].upper() == "A")
    match = _KEY.fullmatch(text)
    if match is None:
        message = f"{text!r} is no key: write for example F#m, Gb minor, Dmaj or 11A"
        raise InvalidInputError(message)
    pitch = _NATURAL[match[1].upper()] + _SHIFTS[match[2]]
    minor = match[3] == "m" or (match[3] or "").lower() in ("min", "minor")
    return _name(pitch, minor=minor)


def relative_key(key: str) -> str:
    """Return the key of the other mode with the same notes: A minor → C major."""
    pitch, minor = _parts(key)
    return _name(pitch + 3, minor=False) if minor else _name(pitch - 3, minor=True)


def compatible_keys(key: str) -> tuple[str, ...]:
    """Return the key, its relative, and its two neighbours on the Camelot wheel.

    These are what DJs mix with: the same number with either letter, and the same letter with the
    numbers beside it, which is a fifth up and a fifth down.
    """
    pitch, minor = _parts(key)
    neighbours = (_name(pitch + _FIFTH, minor=minor), _name(pitch - _FIFTH, minor=minor))
    return (key, relative_key(key), *neighbours)


def _at_camelot(number: int, *, minor: bool) -> str:
    # 1A is G# minor and 1B is B major; each number on is a fifth higher.
    return _name((8 if minor else 11) + _FIFTH * (number - 1), minor=minor)


def _parts(key: str) -> tuple[int, bool]:
    name, _, mode = key.partition(" ")
    return _NAMES.index(name), mode == "minor"


def _name(pitch: int, *, minor: bool) -> str:
    return f"{_NAMES[pitch % 12]} {'minor' if minor else 'major'}"
