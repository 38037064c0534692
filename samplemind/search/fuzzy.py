"""Correcting misspelt words by the vocabulary of the index.

A word that no file has is replaced by the likeliest that files have: of the words one typing error
away, the one that is common and whose error is usual; failing these, of the words that share
trigrams with it, the nearest. Titles are never compared: they share too many trigrams.

Invariant: a word that finds something is never changed, however rare it is, and nobody is told a
word that only other people's private files have.
"""

import math
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.search.filters import Filters
from samplemind.search.text import split_query
from samplemind.search.vocabulary import CountedWord, fold, visible_words

_LEAST_LENGTH = 3  # a word of two letters is a letter away from too many
_MOST_LENGTH = 40
_MOST_WORDS = 8  # corrected in one query
_WORD = re.compile(r"[^\s\"\-][^\s\"]*")
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")

_UNKNOWN = text("""
SELECT asked.word
FROM unnest(CAST(:words AS text[])) AS asked (word)
WHERE NOT EXISTS (SELECT FROM search_words AS known WHERE known.word = asked.word)
  AND NOT EXISTS (
      SELECT FROM search_texts
      WHERE words @@ plainto_tsquery(CAST(:configuration AS regconfig), asked.word))
""")
_KNOWN = text("""
SELECT word, documents FROM search_words WHERE word = ANY(CAST(:words AS text[]))
""")
_SIMILAR = text("""
SELECT word, documents FROM search_words WHERE word % :word
ORDER BY similarity(word, :word) DESC, documents DESC LIMIT 50
""")

# How unlikely an error is, as the logarithm of its share among typing errors: two letters swapped,
# one left out or doubled are usual, the key beside is one of several, anything else is rare.
_SWAPPED = _LEFT_OUT = _DOUBLED = 0.0
_NEIGHBOUR = 1.4
_ADDED = 2.5
_OTHER = 3.0
_FIRST_LETTER = 1.0
_WEIGHT_OF_COUNT = 0.5  # of the logarithm of how many files have the word
_SECOND_ERROR = 4.0


@dataclass(frozen=True, slots=True)
class _Candidate:
    word: str
    cost: float


async def correct(
    session: AsyncSession, query: str, filters: Filters, configuration: str
) -> str | None:
    """Return the query with its unknown words corrected, or none where there is nothing to mend."""
    split = split_query(query).strip()
    asked = list(dict.fromkeys(fold(word) for word in _words(split)))[:_MOST_WORDS]
    if not asked:
        return None
    parameters = {"words": asked, "configuration": configuration}
    unknown = list(await session.scalars(_UNKNOWN, parameters))
    corrections = await _corrections(session, unknown, filters)
    if not corrections:
        return None
    return _WORD.sub(lambda match: corrections.get(fold(match[0]), match[0]), split)


async def _corrections(
    session: AsyncSession, unknown: Sequence[str], filters: Filters
) -> dict[str, str]:
    near = {word: list(one_error_away(word)) for word in unknown}
    wanted = sorted({candidate.word for found in near.values() for candidate in found})
    counts = await _counts(session, wanted, filters)
    corrections: dict[str, str] = {}
    for word, candidates in near.items():
        best = _likeliest(candidates, counts)
        if best is None:
            best = _likeliest(*await _two_errors_away(session, word, filters))
        if best is not None:
            corrections[word] = best
    return corrections


async def _counts(session: AsyncSession, words: Sequence[str], filters: Filters) -> dict[str, int]:
    if not words:
        return {}
    rows = await session.execute(_KNOWN, {"words": list(words)})
    found = [CountedWord(row.word, row.documents) for row in rows]
    return {word.text: word.documents for word in await visible_words(session, found, filters)}


async def _two_errors_away(
    session: AsyncSession, word: str, filters: Filters
) -> tuple[list[_Candidate], dict[str, int]]:
    rows = (await session.execute(_SIMILAR, {"word": word})).all()
    most = 2 if len(word) < 9 else 3
    near = [
        (CountedWord(row.word, row.documents), errors)
        for row in rows
        if (errors := distance(word, row.word)) <= most
    ]
    visible = set(await visible_words(session, [counted for counted, _ in near], filters))
    candidates = [
        _Candidate(counted.text, errors * _SECOND_ERROR)
        for counted, errors in near
        if counted in visible
    ]
    return candidates, {counted.text: counted.documents for counted in visible}


def _likeliest(candidates: Sequence[_Candidate], counts: dict[str, int]) -> str | None:
    def likelihood(candidate: _Candidate) -> tuple[float, str]:
        count = _WEIGHT_OF_COUNT * math.log(counts[candidate.word])
        return (count - candidate.cost, candidate.word)

    known = [candidate for candidate in candidates if counts.get(candidate.word, 0) > 0]
    return max(known, key=likelihood).word if known else None


def one_error_away(word: str) -> Iterator[_Candidate]:
    """Yield every word from which one typing error makes this one, and how unusual the error is."""
    seen: dict[str, float] = {}
    for candidate, cost in _edits(word):
        if candidate != word and cost < seen.get(candidate, math.inf):
            seen[candidate] = cost
    return (_Candidate(candidate, cost) for candidate, cost in seen.items())


def distance(first: str, second: str) -> int:
    """Return how many letters are to be changed, added, left out or swapped with the next one.

    The optimal string alignment distance: no stretch is changed twice.
    """
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, 1):
        before, last, row = row, before, [i]
        for j, other in enumerate(second, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == second[j - 2] and first[i - 2] == other:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]


def _edits(word: str) -> Iterator[tuple[str, float]]:
    letters = string.ascii_lowercase
    for i in range(len(word) + 1):
        head, tail = word[:i], word[i:]
        first = _FIRST_LETTER if i == 0 else 0.0
        if tail:
            doubled = i > 0 and head[-1] == tail[0]
            yield head + tail[1:], first + (_DOUBLED if doubled else _ADDED)
        if len(tail) > 1:
            yield head + tail[1] + tail[0] + tail[2:], first + _SWAPPED
        for letter in letters:
            yield head + letter + tail, first + _LEFT_OUT
            if tail:
                beside = letter in _BESIDE.get(tail[0], "")
                yield head + letter + tail[1:], first + (_NEIGHBOUR if beside else _OTHER)


def _words(split: str) -> Iterator[str]:
    for match in _WORD.finditer(split):
        word = match[0]
        fits = _LEAST_LENGTH <= len(word) <= _MOST_LENGTH
        if fits and word.lower() != "or" and not word.isdigit():
            yield word


def _beside() -> dict[str, str]:
    places = {
        key: (row, column) for row, keys in enumerate(_KEYS) for column, key in enumerate(keys)
    }
    return {
        key: "".join(
            other
            for other, (r, c) in places.items()
            if other != key and abs(r - row) <= 1 and abs(c - column) <= 1
        )
        for key, (row, column) in places.items()
    }


_BESIDE = _beside()
