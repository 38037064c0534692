"""How names and queries become words, the same way on both sides.

A file name is one token to PostgreSQL's parser (`kick_03-final`, `128bpm`), so words are split
here before they are indexed and before they are asked for: at punctuation, between lower and upper
case, and between digits and letters. A sharp is written out (`F#` → `fsharp`), because the parser
drops the sign.

Invariant: splitting is idempotent, and a text's words are found however the text was written.
"""

import re
import unicodedata

# An underscore is a word character to `\b`, so the boundary before a note is spelt out.
_SHARP = re.compile(r"(?<![^\W_])([A-Ga-g])[#♯]")
_FLAT = re.compile(r"(?<![^\W_])([A-Ga-g])♭")
# ASCII punctuation but for the apostrophe and the sharp: to the parser, some of it starts a tag,
# an address or a path, whose words it then hides.
_SEPARATORS = re.compile(r"[!\"$-&(-/:-@\[-`{-~–—]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_DIGITS = re.compile(r"(?<=[0-9])(?=[^\W\d_])|(?<=[^\W\d_])(?=[0-9])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_SPACES = re.compile(r"\s+")

# What websearch_to_tsquery reads as syntax: a minus before a word, quotes, and `or`.
_MINUS = re.compile(r"(?<!\S)-(?=\S)")


def split_words(text: str) -> str:
    """Return the text with its words apart: `DarkKick_03-final` → `Dark Kick 03 final`."""
    text = unicodedata.normalize("NFC", _CONTROL.sub(" ", text))
    text = _FLAT.sub(r"\1flat ", _SHARP.sub(r"\1sharp ", text))
    for boundary in (_SEPARATORS, _CAMEL, _DIGITS):
        text = boundary.sub(" ", text)
    return _SPACES.sub(" ", text).strip()


def split_query(query: str) -> str:
    """Return a web-search query with its words split as the index's are.

    Quotes, `or` and a minus before a word keep their meaning; the words of a name that was split
    stay together as a phrase, so `kick_03` finds neither `kick 04` nor `snare 03`.
    """
    parts = _CONTROL.sub(" ", query).split('"')
    for position, part in enumerate(parts):
        quoted = position % 2 == 1
        parts[position] = split_words(part) if quoted else _split_unquoted(part)
    return '"'.join(parts)


def _split_unquoted(part: str) -> str:
    words = []
    for word in _SPACES.sub(" ", part).split():
        minus = "-" if _MINUS.match(word) else ""
        split = split_words(word.removeprefix("-"))
        if split:
            words.append(f'{minus}"{split}"' if " " in split else f"{minus}{split}")
    return f" {' '.join(words)} " if words else " "
