"""Correcting misspelt words by the vocabulary of the index.

A word that no file has is replaced by the likeliest that files have: of the words one typing error
away, the one that is common and whose error is usual; failing these, of the words that share
trigrams with it, the nearest. Titles are never compared: they share too many trigrams.

Invariant: a word that finds something is never changed in what is searched, however rare it is: a
far commoner one is only suggested, or searched where the whole query finds nothing. Nobody is told
a word that only other people's private files have, nor spared a correction by one.
"""

import math
import re
import string
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.search.filters import Filters
from samplemind.search.query_limits import LIMITING, note_limits
from samplemind.search.text import split_query
from samplemind.search.vocabulary import CountedWord, fold, visible_words
from samplemind.settings import SearchSettings

_LEAST_LENGTH = 3  # a word of two letters is a letter away from too many
_MOST_LENGTH = 40
_MOST_WORDS = 8  # corrected in one query
_WORD = re.compile(r"[^\s\"\-][^\s\"]*")
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")

# A word that came after the vocabulary was counted finds something all the same.
_ASKED = text(f"""
SELECT asked.word, known.documents, known.shared,
       known.word IS NULL AND EXISTS (
           SELECT FROM search_texts
           WHERE words @@ plainto_tsquery(CAST(:configuration AS regconfig), asked.word)) AS is_new,
       {LIMITING} AS limits
FROM unnest(CAST(:words AS text[])) AS asked (word) LEFT JOIN search_words AS known USING (word)
""")  # noqa: S608 - a constant's value
# As one text: it takes longer to write some hundred words as an array than to look them up.
_KNOWN = text("""
SELECT word, documents, shared FROM search_words
WHERE word = ANY(string_to_array(CAST(:words AS text), ' '))
""")
_SIMILAR = text("""
SELECT word, documents, shared FROM search_words WHERE word % :word
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
# A word of at most so many files may be a typing error of one that so many times as many have.
_RARE = 100
_FAR_COMMONER = 100


@dataclass(frozen=True, slots=True)
class Correction:
    """A query with words replaced; none where nothing was.

    Attributes:
        needed: only those replaced that find nothing.
        likely: also rare words that are a usual typing error away from far commoner ones.
    """

    needed: str | None = None
    likely: str | None = None


async def correct(
    session: AsyncSession, query: str, filters: Filters, settings: SearchSettings
) -> Correction:
    """Return the query with its misspelt words corrected, as the filters' viewer may be told."""
    split = split_query(query).strip()
    asked = list(dict.fromkeys(fold(word) for word in _words(split)))[:_MOST_WORDS]
    if not asked:
        return Correction()
    vocabulary = _Vocabulary(session, filters, settings.text_configuration)
    counts = await vocabulary.count_asked(asked, settings.statement_timeout_ms)
    suspected = [word for word in asked if counts.get(word, 0) <= _RARE]
    likely = await _corrections(vocabulary, suspected, counts)
    needed = {word: better for word, better in likely.items() if word not in counts}
    return Correction(_replaced(split, needed), _replaced(split, likely))


def _replaced(split: str, corrections: Mapping[str, str]) -> str | None:
    if not corrections:
        return None
    return _WORD.sub(lambda match: corrections.get(fold(match[0]), match[0]), split)


async def _corrections(
    vocabulary: "_Vocabulary", words: Sequence[str], counts: Mapping[str, int]
) -> dict[str, str]:
    """Return the better word for each that has one; `counts` are of those that find something."""
    near = {word: one_error_away(word) for word in words}
    known = await vocabulary.count({each for found in near.values() for each in found})
    corrections: dict[str, str] = {}
    for word, costs in near.items():
        if word in counts:
            least = _FAR_COMMONER * counts[word]
            costs = {
                each: costs[each]
                for each, count in known.items()
                if count >= least and costs.get(each, math.inf) <= _NEIGHBOUR
            }
        best = _likeliest(costs, known)
        if best is None and word not in counts:
            best = _likeliest(*await _two_errors_away(vocabulary, word))
        if best is not None:
            corrections[word] = best
    return corrections


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """The words that the viewer may be told, by the files that have them."""

    session: AsyncSession
    filters: Filters
    configuration: str

    async def count_asked(self, words: Sequence[str], timeout_ms: int) -> dict[str, int]:
        """Return how many files have each word of a query that finds something.

        It also sets the limits of the queries that follow.
        """
        parameters = {
            "words": words,
            "configuration": self.configuration,
            "timeout_ms": str(timeout_ms),
        }
        rows = (await self.session.execute(_ASKED, parameters)).all()
        note_limits(self.session, timeout_ms=timeout_ms)
        return await self._told(
            CountedWord(row.word, row.documents or 1, row.shared or 0)
            for row in rows
            if row.documents is not None or row.is_new
        )

    async def count(self, words: Collection[str]) -> dict[str, int]:
        """Return how many files have each of those that are known."""
        if not words:
            return {}
        rows = await self.session.execute(_KNOWN, {"words": " ".join(words)})
        return await self._told(CountedWord(*row) for row in rows)

    async def similar(self, word: str) -> dict[str, int]:
        """Return the words that share most trigrams, and how many files have each."""
        most = _most_errors(word)
        rows = await self.session.execute(_SIMILAR, {"word": word})
        near = [CountedWord(*row) for row in rows if distance(word, row.word) <= most]
        return await self._told(near)

    async def _told(self, words: Iterable[CountedWord]) -> dict[str, int]:
        told = await visible_words(self.session, list(words), self.filters, self.configuration)
        return {word.text: word.documents for word in told}


def _most_errors(word: str) -> int:
    return 2 if len(word) < 9 else 3


async def _two_errors_away(
    vocabulary: _Vocabulary, word: str
) -> tuple[dict[str, float], dict[str, int]]:
    counts = await vocabulary.similar(word)
    return {other: distance(word, other) * _SECOND_ERROR for other in counts}, counts


def _likeliest(costs: Mapping[str, float], counts: Mapping[str, int]) -> str | None:
    def likelihood(word: str) -> tuple[float, str]:
        return (_WEIGHT_OF_COUNT * math.log(counts[word]) - costs[word], word)

    known = [word for word, count in counts.items() if count > 0 and word in costs]
    return max(known, key=likelihood) if known else None


def one_error_away(word: str) -> dict[str, float]:
    """Return every word from which one typing error makes this one: how unusual the error is."""
    costs: dict[str, float] = {}
    for other, cost in _edits(word):
        if cost < costs.get(other, math.inf):
            costs[other] = cost
    costs.pop(word, None)
    return costs


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
