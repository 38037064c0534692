"""What the benchmarks ask, each class by how many files hold the words; seeded like the library.

A class is defined by document counts of the library itself, so a larger library gets harder
questions of the same class.
"""

import random
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.search.sounds import Library, Sound

_SAMPLE_CHUNKS = 10  # document counts are estimated on so many chunks of a large library
_NEIGHBOURS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


@dataclass(frozen=True, slots=True)
class Typo:
    """A query with typing errors, and what was meant."""

    typed: str
    meant: str


@dataclass(frozen=True, slots=True)
class Questions:
    """So many queries of each class."""

    text: dict[str, list[str]]
    typos: dict[str, list[Typo]]
    prefixes: list[str]


def ask_about(library: Library, count: int) -> Questions:
    """Return `count` questions of each class."""
    chance = random.Random(library.seed)
    step = max(1, library.chunks // _SAMPLE_CHUNKS)
    sounds = [sound for number in range(0, library.chunks, step) for sound in _of(library, number)]
    documents = Counter(word for sound in sounds for word in words_of(sound))
    share = {word: found / len(sounds) for word, found in documents.items()}
    once = 1.5 / len(sounds)
    bands = {
        "rare": sorted(word for word in share if share[word] <= max(once, 0.0001)),
        "medium": sorted(word for word in share if 0.003 <= share[word] <= 0.03),
        "common": sorted(word for word in share if share[word] >= 0.05),
    }
    text = {name: chance.choices(band, k=count) for name, band in bands.items()}
    text["several words"] = [_several(chance, chance.choice(sounds)) for _ in range(count)]
    either = sorted({*bands["medium"], *bands["common"]})
    text["OR"] = [" or ".join(chance.sample(either, 2)) for _ in range(count)]
    known = sorted(
        word for word in share if documents[word] > 1 and len(word) >= 4 and word.isalpha()
    )
    return Questions(text, _typos(chance, known, sounds, count), _prefixes(chance, sounds, count))


def words_of(sound: Sound) -> set[str]:
    """Return the words of a sound's title, tags and pack, in lower case."""
    return set(f"{sound.title} {sound.pack} {' '.join(sound.tags)}".lower().split())


def mistype(chance: random.Random, word: str) -> str:
    """Return the word with one typing error: swapped, dropped, doubled or a neighbouring key."""
    place = chance.randrange(1, len(word) - 1)
    kind = chance.randrange(4)
    if kind == 0 and word[place] != word[place + 1]:
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    if kind == 1:
        return word[:place] + word[place + 1 :]
    if kind == 2:
        return word[:place] + word[place] + word[place:]
    return word[:place] + _neighbour(chance, word[place]) + word[place + 1 :]


def _neighbour(chance: random.Random, letter: str) -> str:
    row = next((row for row in _NEIGHBOURS if letter in row), string.ascii_lowercase)
    place = row.find(letter)
    return chance.choice([row[i] for i in (place - 1, place + 1) if 0 <= i < len(row)])


def _of(library: Library, number: int) -> list[Sound]:
    return library.chunk(number).sounds


def _several(chance: random.Random, sound: Sound) -> str:
    # What a producer types: two or three of a sound's tags and title words, some of them common.
    words = sorted(word for word in words_of(sound) if word.isalpha())
    return " ".join(chance.sample(words, min(len(words), chance.choice((2, 3)))))


def _typos(
    chance: random.Random, known: Sequence[str], sounds: Sequence[Sound], count: int
) -> dict[str, list[Typo]]:
    # People look for what is there: a word is asked for as often as it is found.
    whole = set(known)
    heard = [word for sound in sounds[:20_000] for word in sorted(words_of(sound) & whole)]
    one = [chance.choice(heard) for _ in range(count)]
    phrases = [_phrase(chance, chance.choice(sounds), whole) for _ in range(count)]
    titles = [chance.choice(sounds).title.lower() for _ in range(count)]
    return {
        "one wrong word": [Typo(mistype(chance, word), word) for word in one],
        "wrong phrase": [_mistype_one(chance, phrase) for phrase in phrases],
        "wrong title": [_mistype_one(chance, title) for title in titles],
    }


def _phrase(chance: random.Random, sound: Sound, known: set[str]) -> str:
    words = sorted(word for word in words_of(sound) if word in known)
    return " ".join(chance.sample(words, 2))


def _mistype_one(chance: random.Random, text: str) -> Typo:
    words = text.split()
    long = [place for place, word in enumerate(words) if len(word) >= 4 and word.isalpha()]
    if not long:
        return Typo(text, text)
    place = chance.choice(long)
    wrong = [*words[:place], mistype(chance, words[place]), *words[place + 1 :]]
    return Typo(" ".join(wrong), text)


def _prefixes(chance: random.Random, sounds: Sequence[Sound], count: int) -> list[str]:
    words = [word for sound in sounds[:20_000] for word in sorted(words_of(sound))]
    return [chance.choice(words)[: chance.randint(1, 7)] for _ in range(count)]
