"""Words of the index as they are told to people.

Invariant: a viewer is never told a word that only files have which they may not see. A word of
many files is no secret; a rare one is told where a file that the viewer sees has it.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Text, cast, exists, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY, REGCONFIG
from sqlalchemy.ext.asyncio import AsyncSession

from samplemind.models.search_text import SearchText
from samplemind.search.filters import Filters
from samplemind.search.languages import TextConfiguration

# A word of so many files is told to everybody.
COMMON = 1000


@dataclass(frozen=True, slots=True)
class CountedWord:
    """A word and how many files have it."""

    text: str
    documents: int


def fold(word: str) -> str:
    """Return the word as the vocabulary has it: small letters without accents."""
    apart = unicodedata.normalize("NFD", word.lower())
    return unicodedata.normalize("NFC", "".join(c for c in apart if not unicodedata.combining(c)))


async def visible_words(
    session: AsyncSession, words: Sequence[CountedWord], filters: Filters
) -> list[CountedWord]:
    """Return those of the words that a file has which the filters' viewer and owner let through."""
    if filters.everything and filters.owner_id is None:
        return list(words)
    common = COMMON if filters.owner_id is None else None
    asked = [word.text for word in words if common is None or word.documents < common]
    if not asked:
        return list(words)
    seen = set(await session.scalars(_seen(asked, filters)))
    return [word for word in words if word.text not in asked or word.text in seen]


def _seen(words: Sequence[str], filters: Filters) -> Any:
    texts = cast(literal(list(words), ARRAY(Text)), ARRAY(Text))
    asked = func.unnest(texts).table_valued("word").render_derived("asked")
    query = func.plainto_tsquery(cast(TextConfiguration.ENGLISH.value, REGCONFIG), asked.c.word)
    found = exists().where(
        SearchText.words.op("@@")(query),
        *filters.visible(SearchText.owner_id, SearchText.file_id),
    )
    return select(asked.c.word).where(found)
