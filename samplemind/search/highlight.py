"""Marking the words that matched, in names as they are written.

PostgreSQL's `ts_headline` would show what was indexed, where `kick_03` stands as `kick 3`; here a
name keeps its form, and each piece of it is marked whose words have a lexeme of the query.

Invariant: what comes out is HTML with <b> and nothing else, whatever a name holds.
"""

import html
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.search.text import clean, split_pieces

_SEPARATOR = " · "
_MOST_PARTS = 4  # of a highlight: the title, and what else matched
_SNIPPET = 120  # characters of a description around its first match
_MATCHING = text("""
SELECT word FROM unnest(CAST(:words AS text[])) AS word
WHERE tsvector_to_array(to_tsvector(CAST(:configuration AS regconfig), word))
      && CAST(:lexemes AS text[])
""")
_TOUCHING = re.compile(r"</b>([ _.\-]?)<b>")


@dataclass(frozen=True, slots=True)
class Names:
    """What of a file may be shown with marks: its title, and the other texts it is found by."""

    title: str
    others: Sequence[str]


async def highlight(
    session: AsyncSession,
    names: Sequence[Names],
    lexemes: Collection[str],
    configurations: Iterable[str],
) -> list[str]:
    """Return for each file its title as HTML, and after it what else of it matched.

    Args:
        session: asked once for each configuration, which words have one of the lexemes.
        names: of the rows of one page.
        lexemes: of the query, without those that must not match.
        configurations: text search configurations that the query was read in.
    """
    shown = [clean(part) for name in names for part in (name.title, *name.others)]
    words = {word for part in shown for piece in split_pieces(part) for word in piece.words}
    matching: set[str] = set()
    for configuration in configurations:
        parameters = {
            "words": sorted(words),
            "lexemes": sorted(lexemes),
            "configuration": configuration,
        }
        matching.update(await session.scalars(_MATCHING, parameters))
    return [_highlighted(name, matching) for name in names]


def _highlighted(names: Names, matching: set[str]) -> str:
    parts = [_marked(clean(names.title), matching)[0]]
    for other in names.others:
        cut = _around_match(clean(other), matching)
        marked, found = _marked(cut, matching)
        if found and len(parts) < _MOST_PARTS:
            parts.append(marked)
    return _SEPARATOR.join(parts)


def _marked(text: str, matching: set[str]) -> tuple[str, bool]:
    parts: list[str] = []
    place, found = 0, False
    for piece in split_pieces(text):
        if matching.isdisjoint(piece.words):
            continue
        found = True
        parts.append(html.escape(text[place : piece.start]))
        parts.append(f"<b>{html.escape(text[piece.start : piece.end])}</b>")
        place = piece.end
    parts.append(html.escape(text[place:]))
    return _TOUCHING.sub(r"\1", "".join(parts)), found


def _around_match(text: str, matching: set[str]) -> str:
    if len(text) <= _SNIPPET:
        return text
    first = next(
        (piece.start for piece in split_pieces(text) if not matching.isdisjoint(piece.words)), 0
    )
    start = max(0, min(first - _SNIPPET // 3, len(text) - _SNIPPET))
    # Cut between words, so that no half of one is taken for another.
    start = 0 if start == 0 else text.find(" ", start, first) + 1 or first
    end = text.rfind(" ", start, start + _SNIPPET)
    end = len(text) if start + _SNIPPET >= len(text) else max(end, start + 1)
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"
