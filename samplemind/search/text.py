"""How names and queries become words, the same way on both sides.

A file name is one token to PostgreSQL's parser (`kick_03-final`, `128bpm`), so words are split
here before they are indexed and before they are asked for: at punctuation, between lower and upper
case, and between digits and letters. A number loses its leading zeros, and a key is written out
(`F#m`, `Gb min` → `fsharp minor`), because the parser drops the sign.

Invariant: splitting is idempotent, and a text's words are found however the text was written.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

# ASCII punctuation, spaces, dashes and loose signs: to the parser, some of these start a tag, an
# address or a path, whose words it then hides.
_SEPARATOR = r"\s!-/:-@\[-`{-~–—♯♭"
# A note with its sign, or a run of anything else up to such a note.
_RUN = re.compile(
    rf"""
    (?P<note>(?:(?<![^\W\d_])[a-g]|[A-G])[\#♯♭](?:m(?:in(?:or)?|aj(?:or)?)?(?![^\W\d_]))?)
  | (?:(?![A-G][\#♯♭]|(?<=[0-9])[a-g][\#♯♭])[^{_SEPARATOR}])+
    """,
    re.VERBOSE,
)
_HUMP = re.compile(
    r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[0-9])(?=[^0-9])|(?<=[^0-9])(?=[0-9])"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# "fm" stays a word: it is a synthesis more often than a key.
_KEY = re.compile(r"(?P<note>[a-g])(?P<sign>[#♯♭b]?)(?P<mode>m|min|minor|maj|major)?", re.I)
_FM = "fm"
_MODES = {"m": "minor", "min": "minor", "minor": "minor", "maj": "major", "major": "major"}
_PITCHES = ("c", "csharp", "d", "dsharp", "e", "f", "fsharp", "g", "gsharp", "a", "asharp", "b")

# What websearch_to_tsquery reads as syntax: a minus before a word, quotes, and `or`.
_KEY_APART = re.compile(r"(?<!\S)([a-g][#♯♭b]?)\s+(min|maj)(?!\S)", re.I)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a text, from `start` to `end`, and the words that it is found by."""

    start: int
    end: int
    words: tuple[str, ...]


def clean(text: str) -> str:
    """Return the text without characters that no store takes, composed (NFC)."""
    return unicodedata.normalize("NFC", _CONTROL.sub(" ", text))


def split_words(text: str) -> str:
    """Return the text with its words apart: `DarkKick_03-final` → `Dark Kick 3 final`."""
    return " ".join(word for piece in split_pieces(clean(text)) for word in piece.words)


def split_pieces(text: str) -> Iterator[Piece]:
    """Yield what a text, as `clean` returns it, is made of, in its order."""
    noted = False
    for start, end in _stretches(text):
        written = text[start:end]
        words, is_note = _words_of(written)
        if noted and written.lower() in _MODES and len(written) > 1:
            words = (_MODES[written.lower()],)
        noted = is_note
        yield Piece(start, end, words)


def split_query(query: str) -> str:
    """Return a web-search query with its words split as the index's are.

    Quotes, `or` and a minus before a word keep their meaning; the words of a name that was split
    stay together as a phrase, so `kick_03` finds neither `kick 04` nor `snare 03`.
    """
    parts = clean(query).split('"')
    for position, part in enumerate(parts):
        quoted = position % 2 == 1
        parts[position] = split_words(part) if quoted else _split_unquoted(part)
    return '"'.join(parts)


def _stretches(text: str) -> Iterator[tuple[int, int]]:
    for run in _RUN.finditer(text):
        if run["note"] is not None:
            yield run.span()
            continue
        start = run.start()
        for hump in _HUMP.finditer(text, *run.span()):
            if hump.start() > start:
                yield start, hump.start()
                start = hump.start()
        yield start, run.end()


def _words_of(written: str) -> tuple[tuple[str, ...], bool]:
    """Return the words of a stretch, and whether it is a note that a mode may follow."""
    if written.isascii() and written.isdigit():
        return (written.lstrip("0") or "0",), False
    key = _KEY.fullmatch(written)
    if key is None or written.lower() == _FM:
        return (written,), False
    if not key["sign"] and not key["mode"]:
        return (written,), True
    shift = {"": 0, "#": 1, "♯": 1}.get(key["sign"], -1)
    pitch = _PITCHES[(_PITCHES.index(key["note"].lower()) + shift) % 12]
    if key["mode"] is None:
        return (pitch,), True
    return (pitch, _MODES[key["mode"].lower()]), False


def _split_unquoted(part: str) -> str:
    words = []
    for word in _KEY_APART.sub(_joined_key, part).split():
        minus = "-" if len(word) > 1 and word.startswith("-") else ""
        split = split_words(word)
        if split:
            words.append(f'{minus}"{split}"' if " " in split else f"{minus}{split}")
    return f" {' '.join(words)} " if words else " "


def _joined_key(match: re.Match[str]) -> str:
    return f"{match[1]} {_MODES[match[2].lower()]}"
