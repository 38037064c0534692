"""Marking the words that matched, in names as they are written.

PostgreSQL's `ts_headline` would show what was indexed, where `kick_03` stands as `kick 3`; here a
name keeps its form, and each piece of it is marked whose words have a lexeme of the query.

Invariant: what comes out is HTML with <b> and nothing else, whatever a name holds.
"""

import html
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.search.text import Piece, clean, split_pieces

_SEPARATOR = " · "
_MOST_PARTS = 4  # of a highlight: the title, and what else matched
_SNIPPET = 120  # characters of a description around its first match
_LEXEMES = text("""
SELECT word, tsvector_to_array(to_tsvector(CAST(:configuration AS regconfig), word)) AS lexemes
FROM unnest(CAST(:words AS text[])) AS word
""")
_KNOWN_WORDS = 50_000  # whose lexemes are kept; names repeat their words
_TOUCHING = re.compile(r"</b>([ _.\-]?)<b>")


@dataclass(frozen=True, slots=True)
class Names:
    """What of a file may be shown with marks: its title, and the other texts it is found by."""

    title: str
    others: Sequence[str]


class Highlighter:
    """Marks matches; it keeps the lexemes of the words it has met, which never change."""

    def __init__(self) -> None:
        self._lexemes: dict[tuple[str, str], frozenset[str]] = {}

    async def highlight(
        self,
        session: AsyncSession,
        names: Sequence[Names],
        lexemes: Collection[str],
        configurations: Iterable[str],
    ) -> list[str]:
        """Return for each file its title as HTML, and after it what else of it matched.

        Args:
            session: asked for the lexemes of words that were not met before.
            names: of the rows of one page.
            lexemes: of the query, without those that must not match.
            configurations: text search configurations that the query was read in.
        """
        words = {
            word
            for name in names
            for part in (name.title, *name.others)
            for piece in _pieces(part)
            for word in piece.words
        }
        wanted = frozenset(lexemes)
        matching: set[str] = set()
        for configuration in configurations:
            known = await self._known(session, configuration, words)
            matching |= {word for word, found in known.items() if not wanted.isdisjoint(found)}
        return [_highlighted(name, matching) for name in names]

    async def _known(
        self, session: AsyncSession, configuration: str, words: Collection[str]
    ) -> dict[str, frozenset[str]]:
        """Return the lexemes of each word.

        What is kept may be dropped by another call while this one waits, so nothing that is
        returned is looked up after that.
        """
        kept = self._lexemes
        known = {word: kept[configuration, word] for word in words if (configuration, word) in kept}
        new = sorted(word for word in words if word not in known)
        if not new:
            return known
        parameters = {"words": new, "configuration": configuration}
        found = {
            word: frozenset(lexemes)
            for word, lexemes in await session.execute(_LEXEMES, parameters)
        }
        if len(self._lexemes) + len(found) > _KNOWN_WORDS:
            self._lexemes = {}
        self._lexemes.update({(configuration, word): each for word, each in found.items()})
        return {**known, **found}


@lru_cache(maxsize=8192)
def _pieces(text: str) -> tuple[Piece, ...]:
    # Titles differ, but packs, tags and artists repeat from file to file.
    return tuple(split_pieces(clean(text)))


def _highlighted(names: Names, matching: set[str]) -> str:
    parts = [_marked(clean(names.title), matching)]
    for other in names.others:
        if all(matching.isdisjoint(piece.words) for piece in _pieces(other)):
            continue
        parts.append(_marked(_around_match(clean(other), matching), matching))
        if len(parts) == _MOST_PARTS:
            break
    return _SEPARATOR.join(parts)


def _marked(text: str, matching: set[str]) -> str:
    parts: list[str] = []
    place = 0
    for piece in _pieces(text):
        if matching.isdisjoint(piece.words):
            continue
        parts.append(html.escape(text[place : piece.start]))
        parts.append(f"<b>{html.escape(text[piece.start : piece.end])}</b>")
        place = piece.end
    parts.append(html.escape(text[place:]))
    return _TOUCHING.sub(r"\1", "".join(parts))


def _around_match(text: str, matching: set[str]) -> str:
    if len(text) <= _SNIPPET:
        return text
    first = next(
        (piece.start for piece in _pieces(text) if not matching.isdisjoint(piece.words)), 0
    )
    start = max(0, min(first - _SNIPPET // 3, len(text) - _SNIPPET))
    # Cut between words, so that no half of one is taken for another.
    start = 0 if start == 0 else text.find(" ", start, first) + 1 or first
    end = text.rfind(" ", start, start + _SNIPPET)
    end = len(text) if start + _SNIPPET >= len(text) else max(end, start + 1)
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"
