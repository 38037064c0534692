"""What a file's name and its folders say about its sound: evidence of its own, beside the signal.

Producers write tempo, key and instrument into names (`SM_NP_100_electric_guitar_baby_Dmaj.wav`).
A name may also be hostile: any bytes, up to the file system's limits. Whatever it is, reading it
never raises, takes bounded time, and gives printable text. Nothing here opens a file.
"""

import re
import unicodedata
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from samplemind.audio.hints import Hints, Kind
from samplemind.audio.vocabulary import (
    KIND_PAIRS,
    KIND_WORDS,
    NOT_AFTER_TEMPO,
    NOT_BEFORE_TEMPO,
    PAIRS_WITHOUT_PARTS,
    SORTING_WORDS,
    TAGS_OF_PAIR,
    TAGS_OF_WORD,
)

_FOLDERS_READ = 3
_MAX_CHARACTERS = 512
_MAX_TOKENS = 64
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,5}$", re.ASCII)
_MARKED_TEMPO = re.compile(
    r"(?<![\d.])(\d{2,3}(?:[.,]\d{1,2})?)[\s_-]*bpm(?![a-z])"
    r"|(?<![a-z])bpm[\s_-]*(\d{2,3}(?:[.,]\d{1,2})?)(?![\d.])",
    re.IGNORECASE | re.ASCII,
)
_MARKED_RANGE_BPM = (30.0, 300.0)
_BARE_RANGE_BPM = (60, 200)
_SEPARATORS = re.compile(r"[\W_]+")
_BARE_TEMPO = re.compile(r"[1-9]\d{1,2}", re.ASCII)
_KEY = re.compile(
    r"(?<![A-Za-z#])(?P<note>[A-Ga-g])"
    r"(?P<sign>[#b]|[\s_-]?(?i:sharp|flat))?"
    r"(?:(?P<short>m)(?!\d)|[\s_-]?(?P<mode>(?i:maj(?:or)?|min(?:or)?)))"
    r"(?![A-Za-z#])(?!(?:7|9|11|13)(?!\d))",  # Dm7 and Cmaj9 are chords, not keys.
    re.ASCII,
)
_PITCH_OF_NOTE = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_PITCH_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


@dataclass(frozen=True, slots=True)
class NameEvidence:
    """What a name says; each field is empty where it says nothing.

    Attributes:
        tokens: the name's words in lower case, in order.
        tags: instruments and roles, from a closed vocabulary, the most telling first.
        tempo_bpm: beats a minute.
        key: as `samplemind.audio.key` writes it, "F# minor".
        kind: one-shot or loop.
        pack: the folder that the sound came in.
        title: the name as a person reads it.
    """

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    tempo_bpm: float | None
    key: str | None
    kind: Kind | None
    pack: str | None
    title: str

    @property
    def hints(self) -> Hints:
        """The part of it that a measurement may use to break a tie."""
        return Hints(tempo_bpm=self.tempo_bpm, key=self.key, kind=self.kind)


def read_name(path: Path, *, root: Path | None = None) -> NameEvidence:
    """Read the evidence in a file's name and its nearest folders.

    The file's own name goes before its folders, and a nearer folder before a farther one.

    Args:
        path: it need not exist.
        root: folders from this one upwards say nothing about the sound.
    """
    stem = printable(_EXTENSION.sub("", path.name) or path.name)
    folders = [printable(folder) for folder in _folders(path, root)]
    words = split_words(stem)
    folder_words = [split_words(folder) for folder in folders]
    kind = _kind_of(words)
    for outer in folder_words:
        kind = kind or _kind_of(outer)
    key = _key_of(stem)
    certain = kind is Kind.LOOP or key is not None
    tempo = _marked_tempo(stem) or _bare_tempo(stem, certain=certain)
    for folder in folders:
        tempo = tempo or _marked_tempo(folder)
    return NameEvidence(
        tokens=words[:_MAX_TOKENS],
        tags=_merge(_tags_of(words), *map(_tags_of, folder_words)),
        tempo_bpm=tempo,
        key=key,
        kind=kind,
        pack=_pack_of(folders, folder_words),
        title=_title_of(stem),
    )


def printable(text: str) -> str:
    """Return text of the file system as characters that any store and terminal can take.

    Bytes that are not UTF-8 become U+FFFD; control and format characters (line breaks, reversed
    writing direction) become spaces; compatibility forms become their plain characters.
    """
    decoded = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")[:_MAX_CHARACTERS]
    plain = unicodedata.normalize("NFKC", decoded).replace("♯", "#").replace("♭", "b")
    return "".join(" " if unicodedata.category(c).startswith("C") else c for c in plain).strip()


def printable_path(path: Path) -> str:
    """Return a path as text that is valid UTF-8: the path itself, wherever that is possible.

    One whose bytes are no UTF-8 is written as its file URI (RFC 8089), from which it can be told
    apart and opened.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return path.absolute().as_uri()
    return str(path)


def split_words(text: str) -> tuple[str, ...]:
    """Split at separators, at CamelCase and between letters and digits; all in lower case."""
    marked = []
    for before, here, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if not here.isalnum():
            marked.append(" ")
            continue
        if _is_border(before, here, after):
            marked.append(" ")
        marked.append(here.lower())
    return tuple("".join(marked).split())


def _is_border(before: str, here: str, after: str) -> bool:
    if before.isdecimal() != here.isdecimal():
        return True
    return here.isupper() and (before.islower() or (before.isupper() and after.islower()))


def _folders(path: Path, root: Path | None) -> list[str]:
    """Return the names of the nearest folders, innermost first, below the root."""
    names = []
    for parent in list(path.parents)[:_FOLDERS_READ]:
        if parent == root or not parent.name:
            break
        names.append(parent.name)
    return names


def _singular(word: str) -> str:
    if word in TAGS_OF_WORD or word in KIND_WORDS or len(word) < 4:
        return word
    return word.removesuffix("s")


def _kind_of(words: tuple[str, ...]) -> Kind | None:
    singular = [_singular(word) for word in words]
    kinds = {KIND_WORDS[word] for word in singular if word in KIND_WORDS}
    kinds |= {KIND_PAIRS[pair] for pair in pairwise(singular) if pair in KIND_PAIRS}
    # "Loops and One Shots" says nothing about one of its files.
    return kinds.pop() if len(kinds) == 1 else None


def _tags_of(words: tuple[str, ...]) -> tuple[str, ...]:
    singular = [_singular(word) for word in words]
    tags: list[str] = []
    for pair in pairwise(singular):
        tags.extend(TAGS_OF_PAIR.get(pair, ()))
    consumed = {part for pair in pairwise(singular) if pair in PAIRS_WITHOUT_PARTS for part in pair}
    for word in singular:
        if word not in consumed:
            tags.extend(TAGS_OF_WORD.get(word, ()))
    return _merge(tuple(tags))


def _merge(*groups: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tag for group in groups for tag in group))


def _marked_tempo(text: str) -> float | None:
    found = _MARKED_TEMPO.search(text)
    if found is None:
        return None
    bpm = float((found[1] or found[2]).replace(",", "."))
    lowest, highest = _MARKED_RANGE_BPM
    return bpm if lowest <= bpm <= highest else None


def _bare_tempo(text: str, *, certain: bool) -> float | None:
    """Return the one number that reads as a tempo, or None if none or several do.

    Args:
        text: the file's name; only numbers that stand alone count, as `Kick120` has an index.
        certain: the name tells a loop or a key too. Otherwise a number at either end is an index
            (`Kick 100`, `100 Kick`), and only one between words counts, where packs put a tempo.
    """
    parts = [part.lower() for part in _SEPARATORS.split(text) if part]
    candidates = {
        int(part)
        for before, part, after in zip(["", *parts], parts, [*parts[1:], ""], strict=False)
        if _reads_as_tempo(before, part, after) and (certain or (before and after))
    }
    return float(candidates.pop()) if len(candidates) == 1 else None


def _reads_as_tempo(before: str, part: str, after: str) -> bool:
    if not _BARE_TEMPO.fullmatch(part):
        return False
    lowest, highest = _BARE_RANGE_BPM
    return (
        lowest <= int(part) <= highest
        and before not in NOT_BEFORE_TEMPO
        and after not in NOT_AFTER_TEMPO
    )


def _key_of(text: str) -> str | None:
    """Return the key that a text names with its mode, or None if it names none or several."""
    keys = {key for found in _KEY.finditer(text) if (key := _read_key(found)) is not None}
    return keys.pop() if len(keys) == 1 else None


def _read_key(found: re.Match[str]) -> str | None:
    note, sign = found["note"], (found["sign"] or "").strip(" _-").lower()
    if found["short"] and note.islower():  # "am", "em" and "bm" are words.
        return None
    step = {"": 0, "#": 1, "sharp": 1, "b": -1, "flat": -1}[sign]
    minor = bool(found["short"]) or found["mode"].lower().startswith("min")
    pitch = _PITCH_NAMES[(_PITCH_OF_NOTE[note.upper()] + step) % 12]
    return f"{pitch} {'minor' if minor else 'major'}"


def _pack_of(folders: list[str], folder_words: list[tuple[str, ...]]) -> str | None:
    """Return the nearest folder that is more than a shelf like `Kicks` or `WAV`."""
    for folder, words in zip(folders, folder_words, strict=True):
        if any(not _is_shelf_word(word) for word in words):
            return " ".join(folder.replace("_", " ").split())
    return None


def _is_shelf_word(word: str) -> bool:
    singular = _singular(word)
    return (
        word.isdecimal()
        or word in SORTING_WORDS
        or singular in SORTING_WORDS
        or singular in TAGS_OF_WORD
        or singular in KIND_WORDS
        or singular in {"open", "closed"}
    )


def _title_of(stem: str) -> str:
    return " ".join(re.sub(r"[_\s]+", " ", stem).split()) or "untitled"
